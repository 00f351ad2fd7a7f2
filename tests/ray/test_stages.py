"""What the stages check in the driver, and what they pass to Ray. `tests/ray/cluster` runs them on Ray."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

import lmstudio_integrations.ray as stages
from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.ray._resume import done_keys
from lmstudio_integrations.ray.actors import Embedder, Generator, Reranker
from lmstudio_integrations.ray.stages import embed, generate, rerank


class Dataset:
    """Stands in for a dataset of Ray."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns
        self.stages: list[tuple[Any, dict[str, Any]]] = []

    def schema(self, *, fetch_if_missing: bool) -> Any:
        assert not fetch_if_missing, "this would run the job"
        return SimpleNamespace(names=list(self.columns)) if self.columns else None

    def map_batches(self, actor: Any, **passed: Any) -> "Dataset":
        added = Dataset()
        added.stages = [*self.stages, (actor, passed)]
        return added


class Title(BaseModel):
    title: str


@pytest.fixture(autouse=True)
def objects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ray's object store, in a module that stands in for Ray."""
    stored: list[Any] = []
    ray, data = ModuleType("ray"), ModuleType("ray.data")

    def put(value: Any) -> int:
        stored.append(value)
        return len(stored) - 1

    vars(ray).update(put=put, get=stored.__getitem__)
    vars(data).update(ActorPoolStrategy=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    return stored


def test_a_stage_is_one_call_of_map_batches_with_the_arguments_of_ray_under_their_own_names() -> None:
    ds = embed(
        Dataset("body"),
        model="vectors",
        text="body",
        hosts=["a:1"],
        timeout=5,
        on_error="column",
        concurrency=3,
        num_cpus=0.5,
        resources={"lmstudio": 1},
        label_selector={"zone": "a"},
        runtime_env={"env_vars": {}},
        batch_size=8,
    )
    ((actor, passed),) = ds.stages
    assert actor is Embedder
    own, compute = passed.pop("fn_constructor_kwargs"), passed.pop("compute")
    assert own.items() >= {"model": "vectors", "hosts": ["a:1"], "timeout": 5, "on_error": "column"}.items()
    assert vars(compute) == {"min_size": 3, "max_size": 3, "max_concurrent_calls_per_actor": 4}
    assert passed == {
        "batch_format": "pyarrow",
        "num_cpus": 0.5,
        "resources": {"lmstudio": 1},
        "label_selector": {"zone": "a"},
        "runtime_env": {"env_vars": {}},
        "batch_size": 8,
    }


def test_the_stage_has_the_settings_for_image_downloads_of_the_adapters() -> None:
    names = ("allow_image_download", "allow_private_image_hosts")
    for function in (generate, Generator):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in names} == {
            name: ChatLMStudio.model_fields[name].default for name in names
        }
    allowed: dict[str, Any] = dict.fromkeys(names, True)
    ((_, passed),) = generate(Dataset(), model="chat", prompt="{body}", **allowed).stages
    assert passed["fn_constructor_kwargs"].items() >= allowed.items()


def test_one_actor_with_a_tenth_of_a_core_is_the_default() -> None:
    ((actor, passed),) = generate(Dataset(), model="chat", prompt="{body}").stages
    assert actor is Generator
    assert (passed["num_cpus"], passed["batch_size"], passed["compute"].max_size) == (0.1, 32, 1)


def test_a_stage_of_a_reranker_names_its_columns() -> None:
    ds = rerank(Dataset("question", "texts"), model="reranker", query="question", instruction="Is it about ships?")
    ((actor, passed),) = ds.stages
    assert actor is Reranker
    own = passed["fn_constructor_kwargs"]
    assert own.items() >= {"query": "question", "texts": "texts", "instruction": "Is it about ships?"}.items()
    with pytest.raises(LMStudioValueError, match=r"no column 'query'; it has 'question', 'texts'"):
        rerank(Dataset("question", "texts"), model="reranker")


def test_a_pool_may_grow_or_be_given() -> None:
    ((_, passed),) = embed(Dataset(), model="vectors", concurrency=(1, 4, 2)).stages
    assert passed["compute"].initial_size == 2
    pool = object()
    ((_, passed),) = embed(Dataset(), model="vectors", compute=pool).stages
    assert passed["compute"] is pool


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"concurency": 1}, "did you mean 'concurrency'"),
    ({"api_token": "sk-lm-secret"}, "the token comes from the environment"),
    ({"hosts": ["http://me:secret@a:1"]}, "credentials"),
    ({"model": " "}, "model is empty"),
    ({"prompt": "{boddy}"}, r"no column 'boddy'; did you mean 'body'\?"),
    ({"prompt": "{zzz}"}, "it has 'id', 'body', 'title'"),
    ({"schema": Title}, "has a column 'title' already"),
    ({"output_column": "body"}, "has a column 'body' already"),
    ({"schema": {"properties": {"generated_text_host": {}}}}, "has a field 'generated_text_host'"),
    ({"allow_image_download": "no"}, "allow_image_download must be True or False; got 'no'"),
    ({"allow_private_image_hosts": 1}, "allow_private_image_hosts must be True or False; got 1"),
    ({"key": "number"}, "no column 'number'"),
    ({"resume_from": "out"}, "resume_from needs key"),
    ({"concurrency": 0}, "concurrency must be"),
    ({"concurrency": "2"}, "concurrency must be"),
    ({"concurrency": 2, "compute": object()}, "not both"),
]


@pytest.mark.parametrize(("settings", "message"), INVALID, ids=[next(iter(settings)) for settings, _ in INVALID])
def test_errors_are_found_before_the_job_starts(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LMStudioValueError, match=message) as caught:
        generate(Dataset("id", "body", "title"), **{"model": "chat", "prompt": "{body}", **settings})
    assert "secret" not in str(caught.value)


def test_the_columns_of_a_stage_are_known_to_the_next_one() -> None:
    ds = embed(Dataset("id", "body"), model="vectors", text="body")
    with pytest.raises(LMStudioValueError, match="has a column 'embeddings' already"):
        embed(ds, model="vectors", text="body", output_column="embeddings")
    assert generate(ds, model="chat", prompt="{id}").stages


# Resuming -----------------------------------------------------------------------------------------------------------


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_rows_that_are_done_without_an_error_are_skipped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "1.parquet", id=[1, 2], generated_text_error=pa.array(["no", None], pa.string()))
    write(out / "2.parquet", id=[4])
    ds = generate(Dataset("id"), model="chat", prompt="{id}", key="id", resume_from=out)
    (without, passed), (actor, _) = ds.stages
    assert actor is Generator
    assert (passed["batch_format"], passed["batch_size"]) == ("pyarrow", None)
    batch = pa.table({"id": pa.array([1, 2, 3, 4, None], pa.int32())})
    assert without(batch)["id"].to_pylist() == [1, 3, None]


@pytest.mark.parametrize("exists", [True, False])
def test_without_an_earlier_output_every_row_is_done(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "out").mkdir()
    ds = embed(Dataset("text", "id"), model="vectors", key="id", resume_from=tmp_path / "out")
    assert len(ds.stages) == 1


def test_the_output_may_be_a_file_or_a_uri(tmp_path: Path) -> None:
    write(tmp_path / "one.parquet", id=["a", "b"])
    for output in (str(tmp_path / "one.parquet"), (tmp_path / "one.parquet").as_uri(), tmp_path.as_uri()):
        assert done_keys(output, "id", "error").to_pylist() == ["a", "b"]


def test_a_torn_file_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    assert len(done_keys(str(tmp_path), "id", "error")) == 0
    assert "is no complete Parquet file, and its rows are done again; delete it" in caplog.text


def test_an_output_without_the_key_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", number=[1])
    with pytest.raises(LMStudioValueError, match="has no column 'id'; it has 'number'"):
        done_keys(str(tmp_path), "id", "error")


def test_keys_of_different_types_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", id=[1])
    write(tmp_path / "2.parquet", id=["a"])
    with pytest.raises(LMStudioValueError, match="keys 'id' of different types"):
        done_keys(str(tmp_path), "id", "error")


# The package --------------------------------------------------------------------------------------------------------


def test_without_ray_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        _ = stages.embed
    assert str(caught.value) == f"embed needs ray[data]; run: {install_command('ray')}"


def test_the_public_names_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "find_spec", lambda name: object())
    assert dir(stages) == ["Embedder", "Generator", "Reranker", "embed", "generate", "rerank"]
    assert stages.embed is embed
    assert stages.Generator is Generator
    assert stages.rerank is rerank
    assert stages.Reranker is Reranker
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = stages.no_such_name


@pytest.mark.slow
def test_importing_the_package_imports_neither_ray_nor_pyarrow() -> None:
    script = "import sys, lmstudio_integrations.ray; print({'ray', 'pyarrow'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "set()\n"
