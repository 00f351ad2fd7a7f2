"""One test body for both clients: an adapter that gives the sync client the interface of the async one.

`Awaited` wraps a sync client, a handle or a stream: its methods are awaited and run in a thread, its streams are
iterated with `async for`. Attributes that are not calls are returned unchanged, and a method gets handles as they are:
since Python 3.12, `isinstance` with a protocol does not see dynamic attributes. With `at_once`, a whole test body runs
in one thread: `finish` drives it, and nothing that it awaits has to be waited for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, Self, TypeAlias, TypeVar

import pytest

import lmstudio_integrations as lms

T = TypeVar("T")

_OF_SYNC_CLIENTS = {f"lmstudio_integrations.client.{room}.sync" for room in ("api", "api.decisions", "plugins")}
"""The modules whose objects have methods that block."""

_AT_ONCE = {
    "bound",
    "cancel",
    "complete_stream",
    "lazy_model",
    "respond_stream",
    "result",
    "stream",
    "tools",
    "with_timeouts",
    "with_retries",
}
"""Methods that do not block; they are plain methods of the async client, too."""

_END = object()

Run: TypeAlias = Callable[..., Awaitable[Any]]
"""Calls a function that blocks, with its arguments; what it returns is awaited."""


async def at_once(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call a function in this thread, which waits for it."""
    return function(*arguments, **keywords)


def finish(body: Coroutine[Any, Any, T]) -> T:
    """Run a body in which everything is called at once; return its result."""
    try:
        body.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits for an event loop")


class Awaited:
    """Wraps a sync object; its methods are awaited."""

    def __init__(self, sync: Any, run: Run = asyncio.to_thread) -> None:
        self.sync = sync
        self._run = run

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.sync, "close" if name == "aclose" else name)
        if not callable(value) or name in _AT_ONCE:
            return self._dress(value) if not callable(value) else lambda *args, **kw: self._dress(value(*args, **kw))

        async def call(*args: Any, **kwargs: Any) -> Any:
            arguments = {key: _bare(each) for key, each in kwargs.items()}
            return self._dress(await self._run(value, *map(_bare, args), **arguments))

        return call

    def _dress(self, value: Any) -> Any:
        return dress(value, self._run)

    async def __aenter__(self) -> Self:
        self.sync.__enter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        self.sync.__exit__(*details)


def _bare(value: Any) -> Any:
    return value.sync if isinstance(value, Awaited) else value


class AwaitedStream(Awaited):
    """Wraps a sync stream, which is iterated with `async for`."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return _read(iter(self.sync), self._run)

    async def __anext__(self) -> Any:
        if (item := await self._run(next, self.sync, _END)) is _END:
            raise StopAsyncIteration
        return item

    def events(self) -> AsyncIterator[Any]:
        return _read(self.sync.events(), self._run)

    def batches(self) -> AsyncIterator[Any]:
        return _read(self.sync.batches(), self._run)


async def _read(iterator: Iterator[Any], run: Run) -> AsyncIterator[Any]:
    try:
        while (item := await run(next, iterator, _END)) is not _END:
            yield item
    finally:
        iterator.close()  # type: ignore[attr-defined]  # both are generators


def dress(value: Any, run: Run = asyncio.to_thread) -> Any:
    """Wrap objects whose methods block; return others unchanged."""
    if isinstance(value, lms.PredictionStream):
        return AwaitedStream(value, run)
    if isinstance(value, Generator):
        return _read(value, run)
    if type(value).__module__ in _OF_SYNC_CLIENTS:
        return Awaited(value, run)
    if isinstance(value, list) and value and type(value[0]).__module__ in _OF_SYNC_CLIENTS:
        return [Awaited(each, run) for each in value]
    return value


def sync_client(*args: Any, **kwargs: Any) -> Awaited:
    """Return a sync client whose methods are awaited."""
    return Awaited(lms.Client(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A factory of clients, sync and async in turn; its arguments are the client's."""
    return sync_client if request.param == "sync" else lms.AsyncClient
