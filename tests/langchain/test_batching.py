"""Batches of `ChatLMStudio`: what is rejected, how many run at once, what reaches each call."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.runnables.config import set_config_context

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._batches import interruptible_executor
from tests.langchain.conftest import Server
from tests.support.signals import ctrl_c

Batch = Callable[[Any, list[str]], Any]
"""Runs a batch to its end, in a model's own way."""


async def _drain(items: Any) -> list[Any]:
    return [item async for item in items]


BATCHES: dict[str, Batch] = {
    "batch": lambda llm, inputs: llm.batch(inputs),
    "batch_as_completed": lambda llm, inputs: list(llm.batch_as_completed(inputs)),
    "streaming": lambda llm, inputs: llm.batch(inputs, stream=True),
    "abatch": lambda llm, inputs: asyncio.run(llm.abatch(inputs)),
    "abatch_as_completed": lambda llm, inputs: asyncio.run(_drain(llm.abatch_as_completed(inputs))),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_string_is_no_batch_of_its_characters(server: Server, batch: Batch) -> None:
    text: Any = "hello"
    with pytest.raises(LMStudioValueError, match=r"of a batch must be a list; got 'hello'; write \['hello'\]$"):
        batch(server.chat(), text)
    assert not server.predictions


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("inputs", [["a"], ["a", "b"]])
def test_a_batch_runs_at_least_one_call_at_once(server: Server, batch: Batch, inputs: list[str]) -> None:
    with (
        set_config_context({"max_concurrency": 0}) as context,
        pytest.raises(LMStudioValueError, match="max_concurrency must be at least 1, or None; got 0"),
    ):
        context.run(batch, server.chat(), inputs)
    assert not server.predictions


@pytest.mark.parametrize("make", [Server.chat, Server.llm])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_errors_that_are_kept_stop_nothing(server: Server, make: Callable[[Server], Any], asynchronous: bool) -> None:
    llm, inputs = make(server) | StrOutputParser(), ["count", "break", "silent"]
    runs = llm.abatch(inputs, return_exceptions=True) if asynchronous else llm.batch(inputs, return_exceptions=True)
    first, second, third = asyncio.run(runs) if asynchronous else runs
    assert isinstance(second, ModelError)
    assert (first[:3], third) == ("0 1", "I will not.")
    found = dict(llm.batch_as_completed(["count", "break"], return_exceptions=True))
    assert isinstance(found[1], ModelError)
    assert [index for index, _ in make(server).batch_as_completed(["silent"])] == [0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_responses_stay_in_their_places_if_each_call_of_a_batch_is_retried_by_itself(asynchronous: bool) -> None:
    """As the page on batches advises: the batch of core's retry gives the response of one call to another."""
    passing = {"when": {"last": "^passing", "times": 1}, "then": [{"error": "the engine gave up"}]}
    lasting = {"when": {"last": "^lasting"}, "then": [{"error": "the engine gave up"}]}
    inputs = ["passing", "lasting", "none"]

    def batch(make: Callable[[Any], Any]) -> list[Any]:
        with Server([ModelEntry(key="m", rules=(passing, lasting, {"then": [{"text": "{last}"}]}))]) as server:
            retrying = server.chat(model="m").with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
            runs = make(retrying)
            if asynchronous:
                return asyncio.run(runs.abatch(inputs, return_exceptions=True))
            return runs.batch(inputs, return_exceptions=True)  # type: ignore[no-any-return]

    first, second, third = batch(lambda retrying: RunnableLambda(retrying.invoke, retrying.ainvoke))
    assert isinstance(second, ModelError)
    assert (first.text, third.text) == ("passing", "none")
    assert batch(lambda retrying: retrying)[1].text == "passing", "core has mended it: the page need not warn"


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


# What ends them early -------------------------------------------------------------------------------------------------


def _chain(server: Server) -> Any:
    return PromptTemplate.from_template("{q}") | server.chat() | StrOutputParser()


def _structured(server: Server) -> Any:
    return server.chat().with_structured_output({"title": "Person", "type": "object"}, max_attempts=2)


TWO: Any = {"max_concurrency": 2}

ENDLESS_BATCHES: dict[str, Callable[[Server, Any], Any]] = {
    "batch": lambda server, inputs: server.chat().batch(inputs, TWO),
    "errors kept": lambda server, inputs: server.chat().batch(inputs, TWO, return_exceptions=True),
    "batch_as_completed": lambda server, inputs: list(server.chat().batch_as_completed(inputs, TWO)),
    "completion": lambda server, inputs: server.llm().batch(inputs, TWO),
    "completion, as completed": lambda server, inputs: list(server.llm().batch_as_completed(inputs, TWO)),
    "bound": lambda server, inputs: server.chat().bind(max_tokens=9).batch(inputs, TWO),
    "chain": lambda server, inputs: _chain(server).batch([{"q": each} for each in inputs], TWO),
    "structured output": lambda server, inputs: _structured(server).batch(inputs, TWO),
    "branches, async": lambda server, inputs: asyncio.run(
        RunnableParallel({each: server.chat() for each in ("a", "b")}).ainvoke(inputs[0])
    ),
}


def _states(server: Server) -> list[str | None]:
    return [each.stop_reason if each.state != "running" else None for each in server.predictions]


@pytest.mark.parametrize("name", ENDLESS_BATCHES)
def test_ctrl_c_stops_the_predictions_of_a_batch_and_no_others(server: Server, name: str) -> None:
    other: Any = server.chat().stream("for ever")
    with closing(other):
        next(other)
        with (
            pytest.raises(KeyboardInterrupt),
            ctrl_c(lambda: server.wait_for(lambda: len(_states(server)) == 3)),
        ):
            ENDLESS_BATCHES[name](server, ["for ever", "for ever", "for ever"])
        server.wait_for(lambda: _states(server)[1:] == ["userStopped"] * 2)
        assert _states(server)[0] is None


async def test_a_task_that_outlives_an_interrupted_batch_is_released_from_it(server: Server) -> None:
    llm, is_over = server.chat(), asyncio.Event()

    async def work() -> str:
        await is_over.wait()
        return (await llm.ainvoke("count")).text

    def interrupt() -> None:
        with interruptible_executor({}) as (_, context):
            tasks.append(context.run(asyncio.create_task, work()))
            raise KeyboardInterrupt

    tasks: list[asyncio.Task[str]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    is_over.set()
    assert (await tasks[0])[:3] == "0 1"


@pytest.mark.parametrize("make", [Server.chat, Server.llm])
def test_a_break_stops_the_rest_of_a_batch(server: Server, make: Callable[[Server], Any]) -> None:
    responses: Any = make(server).batch_as_completed(["for ever", "count"])
    with closing(responses):
        assert next(responses)[0] == 1
        server.wait_for(lambda: len(server.predictions) == 2)
    server.wait_for(lambda: sorted(map(str, _states(server))) == ["eosFound", "userStopped"])


async def test_core_goes_on_with_an_async_batch_of_which_one_fails_and_a_task_group_does_not(server: Server) -> None:
    """As the page on stopping says."""
    inputs = ["break", "for ever"]

    async def together() -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in inputs:
                tasks.create_task(server.chat().ainvoke(each))

    with pytest.raises(ModelError):
        await server.chat().abatch(inputs)
    await asyncio.to_thread(server.wait_for, lambda: sorted(map(str, _states(server))) == ["None", "error"])
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(ExceptionGroup):
        await together()
    await asyncio.to_thread(server.wait_for, lambda: None not in _states(server))


async def test_the_other_completions_of_a_call_end_if_one_fails(server: Server) -> None:
    with pytest.raises(ModelError):
        await server.llm().agenerate(["for ever", "break", *["for ever"] * 9])
    await asyncio.to_thread(server.wait_for, lambda: None not in _states(server))


async def test_completions_that_are_cancelled_before_they_begin_leave_no_coroutine(server: Server) -> None:
    call = asyncio.create_task(server.llm().agenerate(["for ever"] * 9))
    await asyncio.to_thread(server.wait_for, lambda: len(_states(server)) > 0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gc.collect()  # pytest fails for a coroutine that nobody awaited
