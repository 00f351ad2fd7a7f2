"""A prediction as LlamaIndex's chunks, for threads and for coroutines. Knows no settings.

Closing a stream stops the server. The stream for coroutines is a class, not an async generator: an async generator that
is dropped runs its `finally` when the loop gets to it, or never if the loop is closed; an object is collected at once.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lmstudio_integrations._adapters.outcome import ToolCallOptions
from lmstudio_integrations._adapters.retry import arepeat
from lmstudio_integrations.llama_index._chunks import ResponseBuilder, Step
from lmstudio_integrations.types.results import PredictionEnd, PredictionEvent

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncBatches, AsyncPredictionStream

ChunkT = TypeVar("ChunkT")
MakeChunk = Callable[[ResponseBuilder, Step], ChunkT]
OnEnd = Callable[[PredictionEnd], None]
Batch = list[PredictionEvent]


def chunks(
    batches: Generator[Batch], options: ToolCallOptions, make: MakeChunk[ChunkT], on_end: OnEnd
) -> Generator[ChunkT]:
    """Yield the chunks of a response. An error about its tool calls is raised after the last one."""
    builder = ResponseBuilder(options)
    try:
        for batch in batches:
            for event in batch:
                step = builder.add(event)
                if step is not None:
                    if step.outcome is not None:
                        on_end(step.outcome.result.end)
                    yield make(builder, step)
    finally:
        batches.close()
    builder.check()


class AsyncSource:
    """The events of a prediction. Retries if no server responds; collecting this object stops the server."""

    def __init__(self, open_stream: "Callable[[], Awaitable[AsyncPredictionStream]]", retries: int) -> None:
        self._open = open_stream
        self._retries = retries
        self._batches: AsyncBatches | None = None

    async def next(self) -> Batch:
        """Return the next events.

        Raises:
            StopAsyncIteration: At the end.
        """
        if self._batches is None:
            return await arepeat(self._first, self._retries)
        return await self._batches.__anext__()

    async def _first(self) -> Batch:
        self._batches = (await self._open()).batches()
        return await self._batches.__anext__()

    async def close(self) -> None:
        """Stop the generation, without waiting."""
        if self._batches is not None:
            await self._batches.aclose()


class AsyncChunks(AsyncGenerator[ChunkT, None], Generic[ChunkT]):
    """The chunks of a response. An error about its tool calls is raised after the last one."""

    def __init__(self, source: AsyncSource, options: ToolCallOptions, make: MakeChunk[ChunkT], on_end: OnEnd) -> None:
        self._source: AsyncSource | None = source
        self._builder = ResponseBuilder(options)
        self._make = make
        self._on_end = on_end
        self._ready: deque[PredictionEvent] = deque()

    async def __anext__(self) -> ChunkT:
        if self._source is None:
            raise StopAsyncIteration
        step = None
        while step is None:
            if not self._ready:
                self._ready.extend(await self._next_batch(self._source))
            step = self._builder.add(self._ready.popleft())
        if step.outcome is not None:
            self._on_end(step.outcome.result.end)
        return self._make(self._builder, step)

    async def _next_batch(self, source: AsyncSource) -> Batch:
        try:
            return await source.next()
        except StopAsyncIteration:
            self._source = None
            self._builder.check()
            raise
        except BaseException:
            await self.aclose()
            raise

    async def asend(self, _value: None) -> ChunkT:
        """Return the next chunk."""
        return await self.__anext__()

    async def athrow(self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None) -> ChunkT:
        """Stop the generation and raise the error."""
        await self.aclose()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb) if tb else error

    async def aclose(self) -> None:
        """Stop the generation, without waiting."""
        source, self._source = self._source, None
        self._ready.clear()
        if source is not None:
            await source.close()
