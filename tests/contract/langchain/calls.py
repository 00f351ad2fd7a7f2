"""Batches, concurrency, event loops, threads, processes, cancellation."""

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.contract.langchain.integration import Integration, collect, contract, summed
from tests.contract.suite import NUMBERS, UnsupportedError
from tests.support.event_loop import ticks_during

PROMPTS = ["slow", "count", "nothing"]
RESPONSES = ["so slow", NUMBERS, ""]


@contract("`batch` and `abatch` return the responses in the order of the inputs")
async def _batch(integration: Integration) -> None:
    llm = integration.chat()
    assert [message.text for message in llm.batch(PROMPTS)] == RESPONSES
    assert [message.text for message in await llm.abatch(PROMPTS)] == RESPONSES


@contract("`batch_as_completed` and `abatch_as_completed` yield each response with the index of its input")
async def _batch_as_completed(integration: Integration) -> None:
    llm = integration.chat()
    found = dict(llm.batch_as_completed(PROMPTS))
    awaited = dict([pair async for pair in llm.abatch_as_completed(PROMPTS)])
    for responses in (found, awaited):
        assert [responses[index].text for index in range(3)] == RESPONSES


@contract("with `return_exceptions=True`, a failed input does not affect the others of its batch")
async def _batch_failure(integration: Integration) -> None:
    llm = integration.chat()
    prompts = ["count", "fail", "count"]
    for results in (llm.batch(prompts, return_exceptions=True), await llm.abatch(prompts, return_exceptions=True)):
        first, second, third = results
        assert isinstance(second, Exception)
        assert first.text == third.text == NUMBERS


@contract("`max_concurrency` limits the predictions that a batch runs at once")
async def _max_concurrency(integration: Integration) -> None:
    llm = integration.chat()
    llm.batch(["slow"] * 6, {"max_concurrency": 2})
    await llm.abatch(["slow"] * 6, {"max_concurrency": 2})
    assert integration.server.peak <= 2


@contract("50 parallel calls of one object all return their responses")
async def _parallel(integration: Integration) -> None:
    llm = integration.chat()
    messages = await asyncio.gather(*(llm.ainvoke("count" if number % 2 else "think") for number in range(50)))
    assert [message.text for message in messages] == ["Done now.", NUMBERS] * 25


@contract("`ainvoke` and `astream` do not block the event loop")
async def _native_async(integration: Integration) -> None:
    llm = integration.chat()
    assert await ticks_during(llm.ainvoke("slow")) > 20
    assert await ticks_during(collect(llm.astream("slow"))) > 20


@contract("one object works in several event loops in turn")
def _event_loops(integration: Integration) -> None:
    llm = integration.chat()
    for _ in range(2):
        assert asyncio.run(llm.ainvoke("count")).text == NUMBERS
        assert summed(asyncio.run(collect(llm.astream("count")))).text == NUMBERS


@contract("one object works in several threads at once")
def _threads(integration: Integration) -> None:
    llm = integration.chat()
    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(llm.invoke, ["count"] * 32, timeout=600))
    assert {message.text for message in messages} == {NUMBERS}


@contract("a used object works in a forked process and, afterwards, in its parent")
def _fork(integration: Integration) -> None:
    if not hasattr(os, "fork"):
        raise UnsupportedError("the system cannot fork")
    # In a process of its own: coverage and pytest are not made for forks.
    command = [sys.executable, "-W", "ignore", "-m", "tests.contract.langchain.fork", integration.name]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    folder = Path(__file__).parents[3]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-300:]


@contract("closing a stream cancels the prediction on the server")
def _close(integration: Integration) -> None:
    stream = integration.chat().stream("for ever")
    next(stream)
    stream.close()
    assert integration.server.was_cancelled()


@contract("closing an async stream cancels the prediction on the server")
async def _aclose(integration: Integration) -> None:
    stream = integration.chat().astream("for ever")
    await anext(stream)
    await stream.aclose()
    assert await asyncio.to_thread(integration.server.was_cancelled)


@contract("cancelling the task of `ainvoke` cancels the prediction on the server")
async def _cancel(integration: Integration) -> None:
    task = asyncio.ensure_future(integration.chat().ainvoke("for ever"))
    await asyncio.to_thread(integration.server.wait_until_begun)
    task.cancel()
    await asyncio.wait({task})
    assert await asyncio.to_thread(integration.server.was_cancelled)
