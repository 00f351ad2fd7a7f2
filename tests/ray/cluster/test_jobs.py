"""Jobs on a real Ray: one host, one actor."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ray", reason="tests/ray/run runs these tests: they need Ray")

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from ray import cloudpickle

from lmstudio_integrations.ray import Generator, embed, generate, rerank

pytestmark = pytest.mark.ray
cloudpickle.register_pickle_by_value(sys.modules[__name__])
"""The workers cannot import this file."""

Start = Callable[..., Any]


class Summary(BaseModel):
    title: str
    score: float | None
    tags: list[str]


def rows(ray: ModuleType, count: int, blocks: int = 4) -> Any:
    items = [{"id": number, "body": f"text {number}"} for number in range(count)]
    return ray.data.from_items(items, override_num_blocks=blocks)


def test_stages_run_one_after_another_on_the_lm_studio_of_the_node(ray: ModuleType, tmp_path: Path) -> None:
    ds = embed(rows(ray, 60), model="vectors", text="body", dimensions=8)
    ds = generate(ds, model="chat", prompt="Say {body}")
    ds = generate(ds, model="chat", prompt="{body}", schema=Summary, output_column="summary")
    ds.write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path)
    assert sorted(table["id"].to_pylist()) == list(range(60))
    assert table["generated_text"].to_pylist() == [f"Say {body}" for body in table["body"].to_pylist()]
    assert table.schema.field("embeddings").type == pa.list_(pa.field("element", pa.float32()), 8)
    assert table.schema.field("score").type == pa.float64()
    assert table.schema.field("tags").type.value_type == pa.string()
    assert set(table["generated_text_model"].to_pylist()) == {"chat"}
    assert min(table["generated_text_completion_tokens"].to_pylist()) > 0


def test_the_texts_of_rows_get_scores_with_the_same_types_in_all_blocks(ray: ModuleType, tmp_path: Path) -> None:
    items = [{"id": number, "query": "ferry", "texts": ["rain", "ferry"][: number % 3]} for number in range(60)]
    items[7]["texts"] = ["fail"]
    ds = ray.data.from_items(items, override_num_blocks=4)
    ds = rerank(ds, model="chat", on_error="column", key="id", resume_from=tmp_path, batch_size=5)
    ds.write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path)
    assert table.schema.field("scores").type.value_type == pa.float64()
    rows = {row["id"]: row for row in table.to_pylist()}
    assert "It went wrong" in rows[7]["scores_error"]
    assert [rows[number]["scores"] for number in (0, 1, 2, 7)] == [[], [None], [None, 1.0], None]
    again = rerank(
        ray.data.from_items(items), model="chat", on_error="column", key="id", resume_from=tmp_path, batch_size=5
    )
    assert [row["id"] for row in again.take_all()] == [7]


def test_rows_that_fail_have_their_error_in_a_column_and_all_blocks_have_the_same_types(ray: ModuleType) -> None:
    items = [{"id": number, "body": "fail" if number < 20 else "go"} for number in range(40)]
    ds = ray.data.from_items(items, override_num_blocks=2)
    ds = generate(ds, model="chat", prompt="{body}", on_error="column", batch_size=20)
    blocks = [ray.get(ref) for ref in ds.to_arrow_refs()]
    schemas = {str(block.schema) for block in blocks if block.num_rows}
    assert len(schemas) == 1
    assert "generated_text_prompt_tokens: int64" in schemas.pop()
    table = pa.concat_tables(blocks)
    failed = {row["id"] for row in table.to_pylist() if row["generated_text_error"] is not None}
    assert failed == set(range(20))
    assert all("It went wrong" in row["generated_text_error"] for row in table.to_pylist() if row["id"] < 20)


def test_an_error_ends_the_job_by_default(ray: ModuleType) -> None:
    ds = generate(ray.data.from_items([{"body": "fail"}]), model="chat", prompt="{body}")
    with pytest.raises(Exception, match="It went wrong"):
        ds.materialize()


class Mortal(Generator):
    """Dies once, in the middle of a batch; a file says whether it has."""

    def __init__(self, died: Path, **settings: Any) -> None:
        super().__init__("chat", prompt="{body}", **settings)
        self._died = died

    async def _generate(self, row: dict[str, Any]) -> dict[str, Any]:
        result = await super()._generate(row)
        if row["body"] == "text 30" and not self._died.exists():
            self._died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def test_an_actor_that_dies_is_restarted_and_no_row_is_lost_or_doubled(ray: ModuleType, tmp_path: Path) -> None:
    compute = ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=4)
    ds = rows(ray, 64).map_batches(
        Mortal,
        fn_constructor_kwargs={"died": tmp_path / "died"},
        batch_format="pyarrow",
        batch_size=8,
        compute=compute,
        num_cpus=0.1,
    )
    assert sorted(row["id"] for row in ds.take_all()) == list(range(64))
    assert (tmp_path / "died").exists()


KILLED = """
import ray, sys
from lmstudio_integrations.ray import generate
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
items = [{"id": number, "body": f"text {number}"} for number in range(80)]
ds = ray.data.from_items(items, override_num_blocks=8)
generate(ds, model="chat", prompt="{body}", hosts=[sys.argv[2]], batch_size=10).write_parquet(sys.argv[3])
"""


def test_a_killed_job_is_resumed_where_it_was(
    ray: ModuleType, host: Start, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    held, out = host(hold="^text [4-7][0-9]"), tmp_path / "out"
    address = ray.get_runtime_context().gcs_address
    with subprocess.Popen([sys.executable, "-c", KILLED, address, held.address, str(out)]) as job:
        eventually(lambda: held.state()["waiting"] and any(out.glob("*.parquet")))
        job.kill()
    (out / "torn.parquet").write_bytes(b"PAR1")
    before = held.state()["started"]
    done = set(pq.ParquetDataset([str(path) for path in out.glob("0*.parquet")]).read()["id"].to_pylist())
    assert 0 < len(done) < 80
    held.open()
    ds = generate(
        rows(ray, 80), model="chat", prompt="{body}", hosts=[held.address], key="id", resume_from=out, batch_size=10
    )
    ds.write_parquet(str(out))
    (out / "torn.parquet").unlink()
    assert sorted(pq.read_table(out)["id"].to_pylist()) == list(range(80))
    after = held.state()["started"][len(before) :]
    assert {f"text {number}" for number in done}.isdisjoint(after)


def test_the_slots_of_a_host_are_full_until_all_rows_have_started(
    ray: ModuleType, host: Start, eventually: Callable[..., Any]
) -> None:
    """Only full rounds end; the last ones, which may be smaller, are let pass when all rows have started."""
    together = host(hold="^text", together=True, slots=4)
    ds = generate(rows(ray, 100), model="chat", prompt="{body}", hosts=[together.address], batch_size=10)
    reference = ray.remote(num_cpus=0)(lambda: sorted(row["id"] for row in ds.take_all())).remote()
    eventually(lambda: len(together.state()["started"]) == 100)
    together.open()
    assert ray.get(reference, timeout=60) == list(range(100))


def test_the_driver_needs_no_more_memory_for_more_rows(ray: ModuleType, host: Start) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    server = host()
    ds = ray.data.range(100_000, override_num_blocks=50).map_batches(
        lambda batch: {**batch, "text": [str(number) for number in batch["id"]]}
    )
    ds = embed(ds, model="vectors", hosts=[server.address], batch_size=256)
    seen, early = 0, 0
    for batch in ds.iter_batches(batch_size=1000, batch_format="pyarrow"):
        seen += batch.num_rows
        early = early or (seen >= 20_000 and resident()) or 0
    assert seen == 100_000
    assert resident() - early < 50
