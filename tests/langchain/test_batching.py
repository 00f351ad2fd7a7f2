"""Batches: the first error and Ctrl-C stop what still runs."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ModelError
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import set_config_context

from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioValueError
from lmstudio_integrations.langchain._batching import _BatchStreams, calls_of, results, run_in_tasks, run_in_threads
from tests.langchain.conftest import Server
from tests.support.signals import ctrl_c

Batch = Callable[[Any, list[str]], Any]
"""Runs a batch to its end, in a model's own way."""


async def _drain(items: Any) -> list[Any]:
    return [item async for item in items]


CHAT_BATCHES: dict[str, Batch] = {
    "batch": lambda llm, inputs: llm.batch(inputs),
    "batch_as_completed": lambda llm, inputs: list(llm.batch_as_completed(inputs)),
    "chain": lambda llm, inputs: (RunnableLambda(str) | llm).batch(inputs),
    "streaming": lambda llm, inputs: llm.batch(inputs, stream=True),
}
ASYNC_CHAT_BATCHES: dict[str, Batch] = {
    "abatch": lambda llm, inputs: asyncio.run(llm.abatch(inputs)),
    "abatch_as_completed": lambda llm, inputs: asyncio.run(_drain(llm.abatch_as_completed(inputs))),
}
TEXT_BATCHES: dict[str, Batch] = {"batch": lambda llm, inputs: llm.batch(inputs)}
ASYNC_TEXT_BATCHES: dict[str, Batch] = {"abatch": lambda llm, inputs: asyncio.run(llm.abatch(inputs))}


def _cases(chat: dict[str, Batch], text: dict[str, Batch]) -> list[Any]:
    cases = [("chat", name, batch) for name, batch in chat.items()] + [
        ("llm", name, each) for name, each in text.items()
    ]
    return [pytest.param(model, batch, id=f"{model}-{name}") for model, name, batch in cases]


SYNC = _cases(CHAT_BATCHES, TEXT_BATCHES)
ALL = SYNC + _cases(ASYNC_CHAT_BATCHES, ASYNC_TEXT_BATCHES)


def _all_ended(server: Server) -> bool:
    return all(record.state == "ended" for record in server.predictions)


OWN_BATCHES = {name: batch for name, batch in {**CHAT_BATCHES, **ASYNC_CHAT_BATCHES}.items() if name != "chain"}


@pytest.mark.parametrize("batch", OWN_BATCHES.values(), ids=OWN_BATCHES)
def test_a_string_is_no_batch_of_its_characters(server: Server, batch: Batch) -> None:
    text: Any = "hello"
    with pytest.raises(LMStudioValueError, match=r"of a batch must be a list; got 'hello'; write \['hello'\]$"):
        batch(server.chat(), text)
    assert not server.predictions


@pytest.mark.parametrize(("model", "batch"), _cases(OWN_BATCHES, {**TEXT_BATCHES, **ASYNC_TEXT_BATCHES}))
@pytest.mark.parametrize("inputs", [["a"], ["a", "b"]])
def test_a_batch_runs_at_least_one_call_at_once(server: Server, model: str, batch: Batch, inputs: list[str]) -> None:
    with (
        set_config_context({"max_concurrency": 0}) as context,
        pytest.raises(LMStudioValueError, match="max_concurrency must be at least 1, or None; got 0"),
    ):
        context.run(batch, getattr(server, model)(), inputs)
    assert not server.predictions


@pytest.mark.parametrize(("model", "batch"), ALL)
def test_the_first_error_stops_what_still_runs(server: Server, model: str, batch: Batch) -> None:
    """Without that, the call would end when the stalled ones time out."""
    llm = getattr(server, model)()
    with pytest.raises(ModelError, match="gave up"):
        batch(llm, ["stall", "break", "stall"])
    server.wait_for(lambda: _all_ended(server))
    assert {record.stop_reason for record in server.predictions} <= {"userStopped", "error"}


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(("model", "batch"), ALL)
def test_ctrl_c_stops_what_still_runs(server: Server, model: str, batch: Batch) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ctrl_c(lambda: server.wait_for(lambda: len(server.predictions) == 2)),
    ):
        batch(getattr(server, model)(), ["stall", "stall"])
    server.wait_for(lambda: _all_ended(server))
    assert [record.stop_reason for record in server.predictions] == ["userStopped"] * 2


def test_closing_the_results_stops_what_still_runs(server: Server) -> None:
    responses: Any = server.chat().batch_as_completed(["stall", "count"])
    place, _ = next(responses)
    assert place == 1
    responses.close()
    server.wait_for(lambda: _all_ended(server))


async def test_closing_the_async_results_stops_what_still_runs(server: Server) -> None:
    responses: Any = server.chat().abatch_as_completed(["stall", "count"])
    place, _ = await anext(responses)
    assert place == 1
    await responses.aclose()
    await asyncio.to_thread(server.wait_for, lambda: _all_ended(server))


@pytest.mark.parametrize(("model", "way"), [("chat", "abatch"), ("chat", "abatch_as_completed"), ("llm", "abatch")])
async def test_the_first_error_stops_the_other_tasks_before_it_is_raised(server: Server, model: str, way: str) -> None:
    tasks = asyncio.all_tasks()
    batch: Any = getattr(getattr(server, model)(), way)(["stall", "break", "stall"])
    with pytest.raises(ModelError, match="gave up"):
        await (batch if way == "abatch" else _drain(batch))
    assert asyncio.all_tasks() == tasks


async def test_cancelling_an_async_batch_stops_what_still_runs(server: Server) -> None:
    task = asyncio.create_task(server.chat().abatch(["stall", "stall"]))
    await asyncio.to_thread(server.wait_for, lambda: len(server.predictions) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.wait_for, lambda: _all_ended(server))


def test_a_stopped_response_is_not_cached(server: Server) -> None:
    cache = InMemoryCache()
    llm = server.chat(cache=cache)
    with pytest.raises(ModelError, match="gave up"):
        llm.batch(["stall", "break"])
    assert cache._cache == {}


def test_errors_that_are_kept_stop_nothing(server: Server) -> None:
    llm = server.chat()
    first, second, third = llm.batch(["count", "break", "think"], return_exceptions=True)
    assert isinstance(second, ModelError)
    assert (first.text[:3], third.text) == ("0 1", "Done.")
    found = dict(llm.batch_as_completed(["count", "break"], return_exceptions=True))
    assert isinstance(found[1], ModelError)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_input_and_none(server: Server, asynchronous: bool) -> None:
    llm = server.chat()

    def batch(inputs: list[str], **given: Any) -> list[Any]:
        return asyncio.run(llm.abatch(inputs, **given)) if asynchronous else llm.batch(inputs, **given)

    assert batch([]) == []
    assert [message.text for message in batch(["think"])] == ["Done."]
    with pytest.raises(ModelError, match="gave up"):
        batch(["break"])
    assert isinstance(batch(["break"], return_exceptions=True)[0], ModelError)


def test_configs_and_settings_reach_each_call(server: Server) -> None:
    seen: list[Any] = []
    llm = server.chat().with_config(tags=["all"])
    configs: Any = [{"tags": [name], "callbacks": []} for name in ("a", "b")]
    messages = llm.with_listeners(on_end=lambda run: seen.append(run.tags)).batch(
        ["count", "count"], configs, max_tokens=2
    )
    assert [message.text for message in messages] == ["0 1", "0 1"]
    assert sorted(sorted(tags) for tags in seen) == [["a", "all"], ["all", "b"]]
    with pytest.raises(ValueError, match="same length"):
        llm.batch(["count", "count"], [{}])


# Without models -------------------------------------------------------------------------------------------------------


def test_a_stream_that_comes_after_the_end_of_its_batch_is_rejected() -> None:
    group = _BatchStreams()
    group.close()
    with pytest.raises(LMStudioCancelledError, match="before this call began"):
        group.add(object())  # type: ignore[arg-type]


def test_no_more_calls_run_at_once_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    results([call] * 20, 2)
    assert 1 <= most <= 2


async def test_no_more_tasks_run_at_once_than_allowed() -> None:
    running, most = 0, 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    assert len(await _drain(run_in_tasks([call] * 20, 3))) == 20
    assert most == 3
    await _drain(run_in_tasks([call] * 20, None))
    assert most == 20


def test_results_are_in_order_whichever_call_ends_first() -> None:
    seen = threading.Event()

    def first() -> int:
        assert seen.wait(5)
        return 1

    def second() -> int:
        seen.set()
        return 2

    assert results([first, second], 2) == [1, 2]
    seen.clear()
    found = run_in_threads([first, lambda: 2], 2)
    assert next(found) == (1, 2)
    seen.set()
    assert list(found) == [(0, 1)]


def test_the_limit_is_that_of_the_first_config() -> None:
    calls, limit = calls_of(
        lambda each, config: (each, config["tags"]), [1, 2], {"max_concurrency": 7, "tags": ["t"]}, {}
    )
    assert (limit, [call() for call in calls]) == (7, [(1, ["t"]), (2, ["t"])])
    assert calls_of(lambda each, config: each, [], None, {}) == ([], None)
