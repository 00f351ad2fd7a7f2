"""Batches of one object on several hosts that are processes: what is lost, and how the hosts share the work."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from lmstudio_integrations.client.transport import connections
from lmstudio_integrations.langchain import ChatLMStudio
from tests.ray.cluster.conftest import TOKEN, Host, running_hosts

pytestmark = pytest.mark.slow

SECONDS = 600.0

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")


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


def test_no_prompt_is_lost_or_doubled_if_a_host_is_killed(start: Callable[..., Host]) -> None:
    mortal, other = start(hold="^text"), start(hold="^text [0-3]$")
    prompts = [f"text {number}" for number in range(60)]
    with ThreadPoolExecutor(1) as pool:
        batch = in_background("async", pool, model_on(mortal, other), prompts)
        wait_until(lambda: mortal.state()["waiting"] == 4)
        mortal.kill()
        other.open()
        responses = batch.result(SECONDS)
    assert [each.content for each in responses] == prompts
    assert {each.response_metadata["host"] for each in responses} == {other.address}
    assert sorted(other.state()["started"]) == sorted(prompts)


@needs_signals
def test_prompts_move_from_a_host_that_freezes(start: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that sleeps closes nothing. Its process accepts connections, and says nothing on them."""
    monkeypatch.setattr(connections, "SECOND_SOCKET_TIMEOUT", 0.2)
    frozen, other = start(hold="^text"), start(hold="^text [0-3]$")
    prompts = [f"text {number}" for number in range(20)]
    model = model_on(frozen, other).model_copy(update={"keepalive": 0.2})
    with ThreadPoolExecutor(1) as pool:
        batch = in_background("async", pool, model, prompts)
        wait_until(lambda: frozen.state()["waiting"] == 4)
        frozen.freeze()
        other.open()
        responses = batch.result(SECONDS)
    assert [each.content for each in responses] == prompts
    assert {each.response_metadata["host"] for each in responses} == {other.address}
    assert [status.available for status in model.hosts()] == [False, True]
