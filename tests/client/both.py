"""One test body for both clients: an adapter that gives the sync client the interface of the async one.

`Awaited` wraps a sync client, a handle or a stream: its methods are awaited and run in a thread, its streams are
iterated with `async for`. Attributes that are not calls are returned unchanged, and a method gets handles as they are:
since Python 3.12, `isinstance` with a protocol does not see dynamic attributes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Self

import pytest

import lmstudio_integrations as lms

_OF_SYNC_CLIENTS = {f"lmstudio_integrations.client.{room}.sync" for room in ("api", "api.decisions", "plugins")}
"""The modules whose objects have methods that block."""

_AT_ONCE = {
    "bound",
    "cancel",
    "complete_stream",
    "lazy_model",
    "respond_stream",
    "result",
    "tools",
    "with_timeouts",
    "with_retries",
}
"""Methods that do not block; they are plain methods of the async client, too."""

_END = object()


class Awaited:
    """Wraps a sync object; its methods are awaited."""

    def __init__(self, sync: Any) -> None:
        self.sync = sync

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.sync, "close" if name == "aclose" else name)
        if not callable(value) or name in _AT_ONCE:
            return dress(value) if not callable(value) else lambda *args, **kwargs: dress(value(*args, **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            arguments = {key: _bare(each) for key, each in kwargs.items()}
            return dress(await asyncio.to_thread(value, *map(_bare, args), **arguments))

        return call

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
        return _in_thread(iter(self.sync))

    async def __anext__(self) -> Any:
        if (item := await asyncio.to_thread(next, self.sync, _END)) is _END:
            raise StopAsyncIteration
        return item

    def events(self) -> AsyncIterator[Any]:
        return _in_thread(self.sync.events())

    def batches(self) -> AsyncIterator[Any]:
        return _in_thread(self.sync.batches())


async def _in_thread(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield item
    finally:
        iterator.close()  # type: ignore[attr-defined]  # both are generators


def dress(value: Any) -> Any:
    """Wrap objects whose methods block; return others unchanged."""
    if isinstance(value, lms.PredictionStream):
        return AwaitedStream(value)
    if isinstance(value, Generator):
        return _in_thread(value)
    if type(value).__module__ in _OF_SYNC_CLIENTS:
        return Awaited(value)
    if isinstance(value, list) and value and type(value[0]).__module__ in _OF_SYNC_CLIENTS:
        return [Awaited(each) for each in value]
    return value


def sync_client(*args: Any, **kwargs: Any) -> Awaited:
    """Return a sync client whose methods are awaited."""
    return Awaited(lms.Client(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A factory of clients, sync and async in turn; its arguments are the client's."""
    return sync_client if request.param == "sync" else lms.AsyncClient
