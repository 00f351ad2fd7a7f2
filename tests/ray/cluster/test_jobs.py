"""Jobs on a real Ray, on one host or several."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ray", reason="tests/ray/run runs these tests: they need Ray")

import pyarrow as pa
import pyarrow.parquet as pq
from ray import cloudpickle

from lmstudio_integrations.ray import Embedder, Generator, Reranker

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])
"""The workers cannot import this file."""

Start = Callable[..., Any]


def rows(ray: ModuleType, count: int, blocks: int = 4) -> Any:
    items = [{"id": number, "body": f"text {number}"} for number in range(count)]
    return ray.data.from_items(items, override_num_blocks=blocks)


def with_actor(ray: ModuleType, ds: Any, actor: Any, *, batch_size: int = 32, **arguments: Any) -> Any:
    """Add a stage. The token in the environment is for the hosts that are named there."""
    hosts = arguments.get("hosts")
    environment = {"runtime_env": {"env_vars": {"LMSTUDIO_HOST": ",".join(hosts)}}} if hosts else {}
    return ds.map_batches(
        actor,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=4),
        num_cpus=0.1,
        **environment,
    )


def test_stages_run_one_after_another_on_the_lm_studio_of_the_node(ray: ModuleType, tmp_path: Path) -> None:
    ds = with_actor(ray, rows(ray, 60), Embedder, model="vectors", text="body", dimensions=8)
    ds = with_actor(ray, ds, Generator, model="chat", prompt="Say {body}")
    ds.write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path)
    assert sorted(table["id"].to_pylist()) == list(range(60))
    assert table["generated_text"].to_pylist() == [f"Say {body}" for body in table["body"].to_pylist()]
    assert table.schema.field("embeddings").type == pa.list_(pa.field("element", pa.float32()), 8)
    assert min(table["generated_text_completion_tokens"].to_pylist()) > 0


def test_the_texts_of_rows_get_scores_with_the_same_types_in_all_blocks(ray: ModuleType, tmp_path: Path) -> None:
    items = [{"id": number, "query": "ferry", "texts": ["rain", "ferry"][: number % 3]} for number in range(60)]
    items[7]["texts"] = ["fail"]
    ds = ray.data.from_items(items, override_num_blocks=4)
    with_actor(ray, ds, Reranker, batch_size=5, model="chat", on_error="column").write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path)
    assert table.schema.field("scores").type.value_type == pa.float64()
    found = {row["id"]: row for row in table.to_pylist()}
    assert "It went wrong" in found[7]["scores_error"]
    assert [found[number]["scores"] for number in (0, 1, 2, 7)] == [[], [None], [None, 1.0], None]


def test_rows_that_fail_have_their_error_in_a_column_and_all_blocks_have_the_same_types(ray: ModuleType) -> None:
    items = [{"id": number, "body": "fail" if number < 20 else "go"} for number in range(40)]
    ds = ray.data.from_items(items, override_num_blocks=2)
    ds = with_actor(ray, ds, Generator, batch_size=20, model="chat", prompt="{body}", on_error="column")
    blocks = [ray.get(ref) for ref in ds.to_arrow_refs()]
    schemas = {str(block.schema) for block in blocks if block.num_rows}
    assert len(schemas) == 1
    assert "generated_text_prompt_tokens: int64" in schemas.pop()
    table = pa.concat_tables(blocks)
    failed = {row["id"] for row in table.to_pylist() if row["generated_text_error"] is not None}
    assert failed == set(range(20))


def test_an_error_ends_the_job_by_default(ray: ModuleType) -> None:
    ds = with_actor(ray, ray.data.from_items([{"body": "fail"}]), Generator, model="chat", prompt="{body}")
    with pytest.raises(Exception, match="It went wrong"):
        ds.materialize()


class Mortal(Generator):
    """Dies once, in the middle of a batch; a file says whether it has."""

    def __init__(self, died: Path, **settings: Any) -> None:
        super().__init__("chat", prompt="{body}", **settings)
        self._died = died

    async def _generate(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        result = await super()._generate(row)
        if row["body"] == "text 30" and not self._died.exists():
            self._died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def test_an_actor_that_dies_is_restarted_and_no_row_is_lost_or_doubled(ray: ModuleType, tmp_path: Path) -> None:
    ds = with_actor(ray, rows(ray, 64), Mortal, batch_size=8, died=tmp_path / "died")
    assert sorted(row["id"] for row in ds.take_all()) == list(range(64))
    assert (tmp_path / "died").exists()


# Several hosts --------------------------------------------------------------------------------------------------------


def started_in(ray: ModuleType, hosts: list[Any], count: int) -> Any:
    """Generate texts on hosts in the background; return what gives the rows."""
    addresses = [each.address for each in hosts]
    ds = with_actor(ray, rows(ray, count), Generator, batch_size=16, model="chat", prompt="{body}", hosts=addresses)

    def take_all() -> Any:
        return ds.take_all()

    return ray.remote(num_cpus=0)(take_all).remote()


def test_the_slots_of_all_hosts_are_full_until_all_rows_have_started(
    ray: ModuleType, host: Start, eventually: Callable[..., Any]
) -> None:
    """Only full rounds end; the last ones, which may be smaller, are let pass when all rows have started."""
    hosts = [host(hold="^text", together=True, slots=slots) for slots in (4, 4, 2)]
    job = started_in(ray, hosts, 120)
    eventually(lambda: sum(len(each.state()["started"]) for each in hosts) == 120)
    for each in hosts:
        each.open()
    found = ray.get(job, timeout=600)
    assert sorted(row["id"] for row in found) == list(range(120))
    by_host = Counter(row["generated_text_host"] for row in found)
    assert by_host == {each.address: len(each.state()["started"]) for each in hosts}


def test_vectors_are_made_on_all_hosts(ray: ModuleType, host: Start) -> None:
    hosts = [host(), host()]
    addresses = [each.address for each in hosts]
    ds = with_actor(ray, rows(ray, 200), Embedder, model="vectors", text="body", dimensions=8, hosts=addresses)
    assert {len(row["embeddings"]) for row in ds.take_all()} == {8}
    counts = [each.state()["embedded"] for each in hosts]
    assert sum(counts) == 200
    assert min(counts) > 0


def test_no_row_is_lost_or_doubled_if_a_host_is_killed(
    ray: ModuleType, host: Start, eventually: Callable[..., Any]
) -> None:
    mortal, other = host(hold="^text"), host(hold="^text [6-9][0-9]")
    job = started_in(ray, [mortal, other], 100)
    eventually(lambda: mortal.state()["waiting"] == 4 and other.state()["waiting"] == 4)
    mortal.kill()
    other.open()
    found = ray.get(job, timeout=600)
    assert sorted(row["id"] for row in found) == list(range(100))
    assert {row["generated_text_host"] for row in found} == {other.address}
