"""A prediction's events as LlamaIndex's chunks, for threads and for coroutines. Knows no settings.

Leaving a stream stops the server. The stream for coroutines is a class, not an async generator: the `finally` of one
that is left runs when the loop gets round to it, or never once that is closed, while an object is simply dropped.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lmstudio_integrations.llama_index._chunks import Answer, Step
from lmstudio_integrations.types.results import PredictionEvent

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncBatches, AsyncPredictionStream
    from lmstudio_integrations.client.sync import PredictionStream

ChunkT = TypeVar("ChunkT")
MakeChunk = Callable[[Answer, Step], ChunkT]
OnEnd = Callable[[Answer], None]
Batch = list[PredictionEvent]


def chunks(stream: "PredictionStream", answer: Answer, make: MakeChunk[ChunkT], on_end: OnEnd) -> Generator[ChunkT]:
    """Yield the chunks of an answer; what went wrong with tool calls is raised after the last one."""
    with stream:
        for batch in stream.batches():
            for event in batch:
                step = answer.take(event)
                if step is not None:
                    if step.last:
                        on_end(answer)
                    yield make(answer, step)
    answer.check()


class AsyncChunks(AsyncGenerator[ChunkT, None], Generic[ChunkT]):
    """The chunks of an answer; what went wrong with tool calls is raised after the last one."""

    def __init__(self, stream: "AsyncPredictionStream", answer: Answer, make: MakeChunk[ChunkT], on_end: OnEnd) -> None:
        self._source: AsyncBatches | None = stream.batches()
        self._answer = answer
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
            step = self._answer.take(self._ready.popleft())
        if step.last:
            self._on_end(self._answer)
        return self._make(self._answer, step)

    async def _next_batch(self, source: "AsyncBatches") -> Batch:
        try:
            return await anext(source)
        except StopAsyncIteration:
            self._source = None
            self._answer.check()
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
        """Stop the generation; never waits."""
        source, self._source = self._source, None
        self._ready.clear()
        if source is not None:
            await source.aclose()
