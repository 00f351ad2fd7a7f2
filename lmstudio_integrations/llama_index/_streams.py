"""A prediction as LlamaIndex's chunks, for threads and for coroutines. Knows no settings.

Closing a stream stops the server. The stream for coroutines is a class, not an async generator: an async generator that
is dropped runs its `finally` when the loop gets to it, or never if the loop is closed; an object is collected at once.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from lmstudio_integrations.client.api.responses import AsyncPredictionStream, PredictionStream
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.llama_index._responses import ResponseBuilder, Step
from lmstudio_integrations.types.results import PredictionEvent

ChunkT = TypeVar("ChunkT")
MakeChunk = Callable[[ResponseBuilder, Step], ChunkT]
Batch = list[PredictionEvent]
Watch = AbstractContextManager[None, None]


def chunks(
    stream: PredictionStream, builder: ResponseBuilder, make: MakeChunk[ChunkT], watch: Watch
) -> Generator[ChunkT]:
    """Yield the chunks of a response. An error about its tool calls is raised after the last one.

    Args:
        stream: The prediction.
        builder: Builds the response from its events.
        make: Makes a chunk of what is new.
        watch: Gets the errors of the prediction.
    """
    with short_traceback(), watch, stream:
        for batch in stream.batches():
            for event in batch:
                step = builder.add(event)
                if step is not None:
                    yield make(builder, step)
        builder.check()


class AsyncChunks(AsyncGenerator[ChunkT, None], Generic[ChunkT]):
    """The chunks of a response; see `chunks`."""

    def __init__(
        self, stream: AsyncPredictionStream, builder: ResponseBuilder, make: MakeChunk[ChunkT], watch: Watch
    ) -> None:
        self._source: AsyncBatches | None = stream.batches()
        self._builder = builder
        self._make = make
        self._watch = watch
        self._ready: deque[PredictionEvent] = deque()

    async def __anext__(self) -> ChunkT:
        if self._source is None:
            raise StopAsyncIteration
        step = None
        with short_traceback():
            while step is None:
                if not self._ready:
                    self._ready.extend(await self._next_batch(self._source))
                step = self._builder.add(self._ready.popleft())
        return self._make(self._builder, step)

    async def _next_batch(self, source: AsyncBatches) -> Batch:
        try:
            with self._watch:
                return await anext(source)
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
            await source.aclose()
