"""The script of the worker process."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from lmstudio_integrations.emulator.engines.llama_cpp import worker_client, worker_main
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters
from lmstudio_integrations.emulator.engines.weights import install_hint
from tests.emulator.engines.llama_cpp.fake_worker import FULL


def value_at(target: Any, name: str) -> Any:
    for part in name.split("."):
        target = getattr(target, part)
    return target


def test_every_attribute_that_is_set_exists_and_takes_the_value() -> None:
    target = xllamacpp.CommonParams()
    for name, value in worker_main.attributes(FULL, xllamacpp, "key").items():
        value_at(target, name)
        worker_main._assign(target, name, value)
        assert value_at(target, name) == value
    assert {"handle_completions", "handle_embeddings", "listening_address"} <= set(dir(xllamacpp.Server))


def test_only_the_worker_touches_the_engine() -> None:
    package = Path(worker_main.__file__).parents[2]
    touch = re.compile(r"""(import |import_module\(")xllamacpp""")
    users = [path.name for path in package.rglob("*.py") if touch.search(path.read_text(encoding="utf-8"))]
    assert users == ["worker_main.py"]


def test_the_server_is_never_open_to_others() -> None:
    values = worker_main.attributes(FULL, xllamacpp, "key")
    assert values["hostnames"] == ["127.0.0.1"]
    assert values["port"] == 0
    assert values["api_keys"] == ["key"]
    assert values["n_threads_http"] > FULL.slots


def test_contexts_and_batches_are_as_large_as_needed() -> None:
    own = worker_main.attributes(FULL, xllamacpp, "key")
    assert (own["n_ctx"], own["kv_unified"], own["n_batch"]) == (1536, False, worker_main.PROMPT_STEP)
    assert worker_main.attributes(replace(FULL, prompt_step=32), xllamacpp, "key")["n_ubatch"] == 32
    shared = worker_main.attributes(WorkerParameters("m", 512, slots=3, cache_length=512), xllamacpp, "key")
    assert (shared["n_ctx"], shared["kv_unified"]) == (512, True)
    # A text longer than the batch would be rejected.
    vectors = worker_main.attributes(WorkerParameters("m", 512, embedding=True), xllamacpp, "key")
    assert (vectors["n_batch"], vectors["n_ubatch"]) == (512, 512)
    assert "n_gpu_layers" not in vectors
    assert "flash_attn_type" not in vectors


def test_earlier_prompts_have_no_more_memory_than_the_parent_gives_them() -> None:
    assert worker_main.attributes(FULL, xllamacpp, "key")["cache_ram_mib"] == FULL.prompt_cache_mib == 0
    assert worker_main.attributes(replace(FULL, prompt_cache_mib=5), xllamacpp, "key")["cache_ram_mib"] == 5


def test_a_batch_has_room_for_every_slot() -> None:
    many = worker_main.attributes(WorkerParameters("m", 512, slots=200), xllamacpp, "key")
    assert many["n_batch"] == many["n_ubatch"] == 200


@pytest.mark.parametrize(("context_length", "slots", "batch"), [(511, 4, 512), (1, 4, 4), (512, 4, 512), (5, 1, 5)])
def test_the_slots_of_an_embedding_model_share_a_batch_evenly(context_length: int, slots: int, batch: int) -> None:
    values = worker_main.attributes(
        WorkerParameters("m", context_length, slots=slots, embedding=True), xllamacpp, "key"
    )
    assert values["n_batch"] == values["n_ubatch"] == batch


def run_worker(line: str) -> tuple[dict[str, str], int]:
    result = subprocess.run(
        [sys.executable, "-P", str(worker_main.__file__)],
        input=line,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    (response,) = result.stdout.splitlines()
    return json.loads(response), result.returncode


@pytest.mark.slow
@pytest.mark.parametrize("line", ["", "not json\n", "[]\n", '{"unknown": 1}\n'])
def test_bad_parameters_are_reported_to_the_parent(line: str) -> None:
    response, code = run_worker(line)
    assert response["kind"] == "bad_parameters"
    assert response["error"]
    assert code == 0


@pytest.mark.slow
def test_a_failed_load_is_reported_to_the_parent(tmp_path: Path) -> None:
    response, code = run_worker(WorkerParameters(str(tmp_path / "missing.gguf"), 64).to_json() + "\n")
    assert response["kind"] == "load_failed"
    assert "RuntimeError" in response["error"]
    assert code == 0


def test_a_missing_engine_is_reported_to_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    server, response = worker_main._load(FULL.to_json().encode())
    assert server is None
    assert response["kind"] == "engine_missing"
    error = worker_client._load_error(response, FULL)
    assert error.title.endswith(install_hint())


class FakeServer:
    """Takes the engine's place: remembers what it was given and called."""

    listening_address = "http://127.0.0.1:1"

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def handle_embeddings(self, body: dict[str, Any]) -> None:
        self.calls.append(("embeddings", body))

    def handle_completions(self, body: dict[str, Any]) -> None:
        self.calls.append(("completions", body))


class FakeEngine:
    """The engine's names with a server that loads nothing."""

    CommonParams = xllamacpp.CommonParams
    ggml_type = xllamacpp.ggml_type
    llama_flash_attn_type = xllamacpp.llama_flash_attn_type
    Server = FakeServer


@pytest.mark.parametrize("embedding", [True, False])
def test_a_model_is_ready_after_a_call_passed_through_the_engine(embedding: bool) -> None:
    server, key = worker_main.start(WorkerParameters("m", 64, embedding=embedding), FakeEngine)
    assert [name for name, _ in server.calls] == ["embeddings" if embedding else "completions"]
    assert server.parameters.api_keys == [key]
    assert len(key) == 32


@pytest.mark.slow
def test_the_worker_reports_serves_and_exits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(worker_main.__file__).parent)!r})\n"
        "import worker_main\n"
        "class Server:\n    listening_address = 'http://here'\n"
        "worker_main._load = lambda line: (Server(), {'line': line.decode().strip()})\n"
        "print('noise of the engine')\n"
        "worker_main.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "noise of the engine\n"
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"line": "hello"}
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(600) == 0
