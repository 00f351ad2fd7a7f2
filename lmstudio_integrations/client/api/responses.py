"""Responses for both clients: the streams, and what a handle needs to have a conversation.

Models and generator plugins respond in the same way.
"""

from collections.abc import Awaitable, Coroutine, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from typing_extensions import TypeVar, Unpack

from lmstudio_integrations.client.api.base import BaseHandle, BaseStream
from lmstudio_integrations.client.files.images import PendingHistory
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches, AsyncEvents, AsyncFragments
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.predictions.requests import History, PredictionParameters
from lmstudio_integrations.client.predictions.tool_loop.act import ActParameters, ActResult
from lmstudio_integrations.client.predictions.tool_loop.runners import TaskRunner, ThreadRunner
from lmstudio_integrations.client.support.tracebacks import short_traceback
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.client.transport.mailboxes import DONE
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent, PredictionResult

LanguageModelT_co = TypeVar("LanguageModelT_co", bound=LanguageModel, covariant=True, default=LanguageModel)


class PredictionStream(BaseStream):
    """A running prediction. Iterate over it for its text fragments, or over `events()` for all events.

    Ending the iteration early stops the generation on the server.
    """

    def _fill(self) -> bool:
        return run(self._prediction.advance())

    def batches(self) -> Generator[list[PredictionEvent]]:
        """Yield all events in the batches in which they arrived; cheaper than one by one."""
        ready = self._prediction.ready
        try:
            with short_traceback():
                while ready or self._fill():
                    batch = list(ready)
                    ready.clear()
                    yield batch
        finally:
            self._prediction.close_unless_reading()

    def events(self) -> Iterator[PredictionEvent]:
        """Yield all events in order: fragments, tool calls, progress, and the end."""
        ready = self._prediction.ready
        try:
            with short_traceback():
                while ready or self._fill():
                    yield ready.popleft()
        finally:
            self._prediction.close_unless_reading()

    def __iter__(self) -> Iterator[LlmPredictionFragment]:
        with short_traceback():
            for event in self.events():
                if type(event) is LlmPredictionFragment:
                    yield event

    def __next__(self) -> LlmPredictionFragment:
        ready = self._prediction.ready
        with short_traceback():
            while ready or self._fill():
                event = ready.popleft()
                if type(event) is LlmPredictionFragment:
                    return event
        raise StopIteration

    def start(self) -> None:
        """Send the request now, not with the first read. Waits for the model, but not for its response.

        Raises:
            LMStudioRuntimeError: If the stream was started or has ended.
        """
        run(self._prediction.start())

    def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return run(self._prediction.to_end())

    def cancel(self) -> None:
        """Stop the generation on the server, without waiting. Read on to get what has arrived, then call `result()`.

        Before the model is loaded, this stops the load, and there is no result.
        """
        self._prediction.cancel()

    def close(self) -> None:
        """Stop the generation and discard the rest. Any other reader gets `LMStudioCancelledError`."""
        self._prediction.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPredictionStream(BaseStream):
    """A running prediction. Iterate over it for its text fragments, or over `events()` for all events.

    Ending the iteration early stops the generation on the server. Awaiting it returns the stream itself.
    """

    def __init__(self, prediction: Prediction) -> None:
        super().__init__(prediction)
        self._fragments = AsyncFragments(prediction)

    def batches(self) -> AsyncBatches:
        """Return an iterator over all events, in the batches in which they arrived."""
        return AsyncBatches(self._prediction)

    def events(self) -> AsyncEvents:
        """Return an iterator over all events: fragments, tool calls, progress, and the end."""
        return AsyncEvents(self._prediction)

    def __aiter__(self) -> AsyncFragments:
        return AsyncFragments(self._prediction)

    def __anext__(self) -> Coroutine[Any, Any, LlmPredictionFragment]:
        return self._fragments.__anext__()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self

    async def start(self) -> None:
        """Send the request now, not with the first read. Waits for the model, but not for its response.

        Raises:
            LMStudioRuntimeError: If the stream was started or has ended.
        """
        await arun(self._prediction.start())

    async def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return await arun(self._prediction.to_end())

    def cancel(self) -> Awaitable[None]:
        """Stop the generation on the server. Works with and without `await`. See `PredictionStream.cancel`."""
        self._prediction.cancel()
        return DONE

    async def aclose(self) -> None:
        """Stop the generation and discard the rest. Any other reader gets `LMStudioCancelledError`."""
        self._prediction.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ChatHandle(BaseHandle[LanguageModelT_co]):
    """A handle that responds to conversations: of a model, or of a generator plugin."""

    def respond(self, history: History, **parameters: Unpack[PredictionParameters]) -> PredictionResult:
        """Return the next message of a conversation.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            parameters: See `PredictionParameters`.

        Raises:
            LMStudioValueError: If the history is empty or a setting unknown.
            LMStudioServerError: If the server reports an error.
        """
        return run(self.model.prepare_response(history, parameters).to_end())

    def respond_stream(
        self, history: History | PendingHistory, **parameters: Unpack[PredictionParameters]
    ) -> PredictionStream:
        """Stream the next message of a conversation. The first read, or `start()`, sends the request."""
        return PredictionStream(self.model.prepare_response(history, parameters))

    def act(self, chat: History, tools: Iterable[ToolInput], **parameters: Unpack[ActParameters]) -> ActResult:
        """Let the model call tools until it responds without a call.

        Args:
            chat: A prompt, a `Chat` (which is copied), or a list of messages.
            tools: Functions with type hints and a docstring, or `ToolFunctionDef`s; sync or async.
            parameters: See `ActParameters`.

        Raises:
            LMStudioValueError: If a tool cannot be used.
            LMStudioPredictionError: If the model still calls tools in the last round.
            LMStudioToolCallError: If a tool call of the model cannot be read.
        """
        act = self.model.prepare_act(chat, tools, parameters)
        with ThreadRunner() as runner:
            return run(act.to_end(runner))


class AsyncChatHandle(BaseHandle[LanguageModelT_co]):
    """A handle that responds to conversations: of a model, or of a generator plugin."""

    async def respond(self, history: History, **parameters: Unpack[PredictionParameters]) -> PredictionResult:
        """Return the next message of a conversation.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            parameters: See `PredictionParameters`.

        Raises:
            LMStudioValueError: If the history is empty or a setting unknown.
            LMStudioServerError: If the server reports an error.
        """
        return await arun(self.model.prepare_response(history, parameters).to_end())

    def respond_stream(
        self, history: History | PendingHistory, **parameters: Unpack[PredictionParameters]
    ) -> AsyncPredictionStream:
        """Stream the next message of a conversation. The first read, or `start()`, sends the request."""
        return AsyncPredictionStream(self.model.prepare_response(history, parameters))

    async def act(self, chat: History, tools: Iterable[ToolInput], **parameters: Unpack[ActParameters]) -> ActResult:
        """Let the model call tools until it responds without a call.

        Args:
            chat: A prompt, a `Chat` (which is copied), or a list of messages.
            tools: Functions with type hints and a docstring, or `ToolFunctionDef`s; sync or async.
            parameters: See `ActParameters`.

        Raises:
            LMStudioValueError: If a tool cannot be used.
            LMStudioPredictionError: If the model still calls tools in the last round.
            LMStudioToolCallError: If a tool call of the model cannot be read.
        """
        act = self.model.prepare_act(chat, tools, parameters)
        async with TaskRunner() as runner:
            return await arun(act.to_end(runner))
