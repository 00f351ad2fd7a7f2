"""Errors, timeouts, retries and fallbacks."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from langchain_core.exceptions import ModelError

from tests.contract.langchain.integration import Integration, collect, contract, summed
from tests.contract.suite import NUMBERS, error_of

_TIMEOUT = 5.0


@contract("errors contain the server's message, also in streams")
def _message(integration: Integration) -> None:
    llm = integration.chat()
    assert "the engine gave up" in str(error_of(lambda: llm.invoke("fail")))
    assert "the engine gave up" in str(error_of(lambda: list(llm.stream("fail"))))


@contract("an unreachable server raises langchain-core's `ModelError`, which says that a retry can help")
async def _unreachable(integration: Integration) -> None:
    llm = integration.unreachable()
    errors = [error_of(lambda: llm.invoke("count")), error_of(lambda: list(llm.stream("count")))]
    errors += await asyncio.gather(llm.ainvoke("count"), return_exceptions=True)
    for error in errors:
        assert isinstance(error, ModelError), type(error)
        assert error.is_retryable


@contract("`with_retry` retries a failed call, and then raises its error")
def _retry(integration: Integration) -> None:
    llm = integration.chat(max_retries=0)
    retrying = llm.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert "the engine gave up" in str(error_of(lambda: retrying.invoke("fail")))
    assert integration.server.prediction_count == 3


@contract("`with_fallbacks` falls back to another model if the server is unreachable, streaming or not")
async def _fallbacks(integration: Integration) -> None:
    llm = integration.unreachable().with_fallbacks([integration.chat()])
    assert llm.invoke("count").text == (await llm.ainvoke("count")).text == NUMBERS
    assert summed(llm.stream("count")).text == summed(await collect(llm.astream("count"))).text == NUMBERS


@contract("`timeout` bounds a call whose response stalls, streaming or not")
async def _timeout(integration: Integration) -> None:
    llm = integration.chat(timeout=0.3, max_retries=0)
    pool = ThreadPoolExecutor(2)
    futures: list[Future[Any]] = [pool.submit(llm.invoke, "stall"), pool.submit(lambda: list(llm.stream("stall")))]
    pool.shutdown(wait=False)
    errors = await asyncio.gather(
        *(asyncio.wait_for(asyncio.wrap_future(future), _TIMEOUT) for future in futures),
        asyncio.wait_for(llm.ainvoke("stall"), _TIMEOUT),
        return_exceptions=True,
    )
    assert all(isinstance(error, Exception) for error in errors)
    assert all(future.done() and not future.cancelled() for future in futures)
