"""Jobs on several hosts."""

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("ray", reason="tests/ray/run runs these tests: they need Ray")

from lmstudio_integrations.ray import Embedder, Generator

pytestmark = pytest.mark.ray

Start = Callable[..., Any]


def generated(ray: ModuleType, count: int, hosts: list[Any], *, prompt: str = "{body}", batch_size: int = 32) -> Any:
    items = [{"id": number, "body": f"text {number}"} for number in range(count)]
    arguments = {"model": "chat", "prompt": prompt, "hosts": [each.address for each in hosts]}
    return ray.data.from_items(items, override_num_blocks=4).map_batches(
        Generator,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=4),
        num_cpus=0.1,
    )


def started_in(ray: ModuleType, ds: Any) -> Any:
    """Run a job in the background; return what gives its rows."""

    def rows() -> Any:
        return ds.take_all()

    return ray.remote(num_cpus=0)(rows).remote()


def test_the_slots_of_all_hosts_are_full_until_all_rows_have_started(
    ray: ModuleType, host: Start, eventually: Callable[..., Any]
) -> None:
    """Only full rounds end; the last ones, which may be smaller, are let pass when all rows have started."""
    hosts = [host(hold="^text", together=True, slots=slots) for slots in (4, 4, 2)]
    job = started_in(ray, generated(ray, 120, hosts, batch_size=16))
    eventually(lambda: sum(len(each.state()["started"]) for each in hosts) == 120)
    for each in hosts:
        each.open()
    rows = ray.get(job, timeout=600)
    assert sorted(row["id"] for row in rows) == list(range(120))


def test_each_row_names_the_host_that_responded(ray: ModuleType, host: Start) -> None:
    hosts = [host(pace=100), host(pace=100)]
    rows = generated(ray, 80, hosts).take_all()
    by_host = Counter(row["generated_text_host"] for row in rows)
    assert by_host == {each.address: len(each.state()["started"]) for each in hosts}
    assert min(by_host.values()) > 20


def test_vectors_are_made_on_all_hosts(ray: ModuleType, host: Start) -> None:
    hosts = [host(), host()]
    ds = ray.data.range(200, override_num_blocks=4).map_batches(
        lambda batch: {"text": [str(each) for each in batch["id"]]}
    )
    arguments = {"model": "vectors", "dimensions": 8, "hosts": [each.address for each in hosts]}
    ds = ds.map_batches(Embedder, fn_constructor_kwargs=arguments, batch_format="pyarrow", concurrency=1, num_cpus=0.1)
    assert {len(row["embeddings"]) for row in ds.take_all()} == {8}
    counts = [each.state()["embedded"] for each in hosts]
    assert sum(counts) == 200
    assert min(counts) > 0


def test_no_row_is_lost_or_doubled_if_a_host_is_killed(
    ray: ModuleType, host: Start, eventually: Callable[..., Any]
) -> None:
    mortal, other = host(hold="^text"), host(hold="^text [6-9][0-9]")
    job = started_in(ray, generated(ray, 100, [mortal, other], batch_size=16))
    eventually(lambda: mortal.state()["waiting"] == 4 and other.state()["waiting"] == 4)
    mortal.kill()
    other.open()
    rows = ray.get(job, timeout=600)
    assert sorted(row["id"] for row in rows) == list(range(100))
    assert {row["generated_text_host"] for row in rows} == {other.address}


def test_a_host_ten_times_slower_gets_about_a_tenth_of_what_the_others_get(ray: ModuleType, host: Start) -> None:
    slow, *fast = hosts = [host(pace=4), host(pace=40), host(pace=40)]
    rows = generated(ray, 160, hosts, prompt="One two three four five six {body}").take_all()
    by_host = Counter(row["generated_text_host"] for row in rows)
    assert len(rows) == 160
    for each in fast:
        assert 1 / 20 <= by_host[slow.address] / by_host[each.address] <= 1 / 5
