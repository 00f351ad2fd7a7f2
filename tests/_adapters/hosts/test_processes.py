"""Batches of one object on several hosts that are processes: what is lost, and how the hosts share the work."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from lmstudio_integrations.client.transport import connections
from lmstudio_integrations.langchain import ChatLMStudio
from tests.ray.cluster.conftest import TOKEN, Host, running_hosts

pytestmark = pytest.mark.slow

SECONDS = 30.0

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
both_paths = pytest.mark.parametrize("path", ["sync", "async"])


@pytest.fixture
def start() -> Iterator[Callable[..., Host]]:
    """Return what starts a host; see `tests/ray/cluster/host.py` for the settings."""
    with running_hosts() as make:
        yield make


def model_on(*hosts: Host) -> ChatLMStudio:
    """Return a model whose hosts have been asked already, so that a batch uses all their slots."""
    model = ChatLMStudio(model="chat", host=[each.address for each in hosts], api_token=SecretStr(TOKEN))
    assert all(status.loaded for status in model.hosts())
    return model


def in_background(path: str, pool: ThreadPoolExecutor, model: ChatLMStudio, prompts: list[str]) -> Future[Any]:
    if path == "sync":
        return pool.submit(model.batch, prompts)
    return pool.submit(lambda: asyncio.run(model.abatch(prompts)))


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again until a condition holds; each question is a round trip to a process."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not hold"


@both_paths
def test_the_slots_of_all_hosts_are_full_while_prompts_remain(path: str, start: Callable[..., Host]) -> None:
    """Only full rounds end; the last ones, which may be smaller, are let pass when all prompts have started."""
    hosts = [start(hold="^text", together=True, slots=slots) for slots in (4, 4, 2)]
    prompts = [f"text {number}" for number in range(60)]
    with ThreadPoolExecutor(1) as pool:
        batch = in_background(path, pool, model_on(*hosts), prompts)
        wait_until(lambda: sum(len(each.state()["started"]) for each in hosts) == len(prompts))
        for each in hosts:
            each.open()
        responses = batch.result(SECONDS)
    assert [each.content for each in responses] == prompts
    by_host = Counter(each.response_metadata["host"] for each in responses)
    assert by_host == {each.address: len(each.state()["started"]) for each in hosts}


@both_paths
def test_no_prompt_is_lost_or_doubled_if_a_host_is_killed(path: str, start: Callable[..., Host]) -> None:
    mortal, other = start(hold="^text"), start(hold="^text [0-3]$")
    prompts = [f"text {number}" for number in range(60)]
    with ThreadPoolExecutor(1) as pool:
        batch = in_background(path, pool, model_on(mortal, other), prompts)
        wait_until(lambda: mortal.state()["waiting"] == 4)
        mortal.kill()
        other.open()
        responses = batch.result(SECONDS)
    assert [each.content for each in responses] == prompts
    assert {each.response_metadata["host"] for each in responses} == {other.address}
    assert sorted(other.state()["started"]) == sorted(prompts)


@pytest.mark.sampled(1)
@needs_signals
@both_paths
def test_prompts_move_from_a_host_that_freezes(
    path: str, start: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that sleeps closes nothing. Its process accepts connections, and says nothing on them."""
    monkeypatch.setattr(connections, "SECOND_SOCKET_TIMEOUT", 0.2)
    frozen, other = start(hold="^text"), start(hold="^text [0-3]$")
    prompts = [f"text {number}" for number in range(20)]
    model = model_on(frozen, other).model_copy(update={"keepalive": 0.2})
    with ThreadPoolExecutor(1) as pool:
        batch = in_background(path, pool, model, prompts)
        wait_until(lambda: frozen.state()["waiting"] == 4)
        frozen.freeze()
        other.open()
        responses = batch.result(SECONDS)
    assert [each.content for each in responses] == prompts
    assert {each.response_metadata["host"] for each in responses} == {other.address}
    assert [status.available for status in model.hosts()] == [False, True]


@pytest.mark.exhaustive
@both_paths
def test_a_host_ten_times_slower_gets_about_a_tenth_of_what_the_others_get(
    path: str, start: Callable[..., Host]
) -> None:
    slow, *fast = hosts = [start(pace=4), start(pace=40), start(pace=40)]
    prompts = [f"One two three four {number}" for number in range(120)]
    with ThreadPoolExecutor(1) as pool:
        responses = in_background(path, pool, model_on(*hosts), prompts).result(SECONDS)
    by_host = Counter(each.response_metadata["host"] for each in responses)
    for each in fast:
        assert 1 / 20 <= by_host[slow.address] / by_host[each.address] <= 1 / 5
