"""What a prediction requests: `requests.py` makes a plan from the parameters of a call. And its callbacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.transport.flows import Flow, call_back
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.protocol.endpoints import Channel, Namespace
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prompt_fingerprint import FingerprintMaker
from lmstudio_integrations.types.chat import AssistantMessage, Chat
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import DEFAULT_REASONING, ReasoningOptions
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
)


@dataclass(slots=True)
class Callbacks:
    """The callbacks of a prediction. The waiting thread or coroutine calls them, and the coroutine awaits async ones.

    Attributes:
        on_first_token: Called once, before the first fragment.
        on_prediction_fragment: Called with each fragment.
        on_message: Called with the assistant message, once it is known to be valid.
        on_prompt_processing_progress: Called with growing values that begin with 0.0 and end with 1.0.
        on_tool_call_event: A flow, run for each event of a tool call.
        were_called: Whether one of them was called.
    """

    on_first_token: Callable[[], Any] | None = None
    on_prediction_fragment: Callable[[LlmPredictionFragment], Any] | None = None
    on_message: Callable[[AssistantMessage], Any] | None = None
    on_prompt_processing_progress: Callable[[float], Any] | None = None
    on_tool_call_event: Callable[[PredictionEvent], Flow[None]] | None = None
    were_called: bool = field(default=False, init=False)
    _last_progress: float = field(default=-1.0, init=False)
    _is_first: bool = field(default=True, init=False)

    def show(self, batch: list[PredictionEvent]) -> Flow[None]:
        """Call the callbacks with events."""
        for event in batch:
            if type(event) is LlmPredictionFragment:
                if self._is_first:
                    self._is_first = False
                    yield from self._show_progress(1.0)
                    yield from self._call("on_first_token")
                yield from self._call("on_prediction_fragment", event)
            elif type(event) is PromptProgress:
                yield from self._show_progress(event.progress)
            elif self.on_tool_call_event is not None and type(event) is not PredictionEnd:
                self.were_called = True
                yield from self.on_tool_call_event(event)

    def show_message(self, result: PredictionResult) -> Flow[None]:
        """Call the callback with the whole message."""
        if self.on_message is not None:
            message = Chat().add_assistant_response(result, result.tool_call_requests)
            yield from self._call("on_message", message)

    def _show_progress(self, progress: float) -> Flow[None]:
        if self.on_prompt_processing_progress is None or progress <= self._last_progress:
            return
        is_first, self._last_progress = self._last_progress < 0, progress
        if is_first and progress > 0:
            yield from self._call("on_prompt_processing_progress", 0.0)
        yield from self._call("on_prompt_processing_progress", progress)

    def _call(self, name: str, *arguments: Any) -> Flow[None]:
        callback = getattr(self, name)
        if callback is not None:
            self.were_called = True
            yield from call_back(name, callback, *arguments)


class PredictionRequest(Protocol):
    """One way to request a prediction. If the server does not know the endpoint, the next way is tried."""

    namespace: Namespace
    endpoint: Channel

    def upload(self, operation: Operation) -> Flow[None]:
        """Upload what the request refers to. It is run once for each operation."""
        ...

    def parameter(self, operation: Operation, instance: Instance) -> Flow[Mapping[str, Any]]:
        """Return the parameter of the request."""
        ...


@dataclass(slots=True)
class Plan:
    """What a prediction requests. Each prediction has its own.

    Attributes:
        requests: The ways to request it, best first.
        label: What errors call it.
        settings: Its settings.
        options: The keyword arguments of the call; each middleware reads its own.
        preset: A preset on the server, by its (fuzzy) identifier.
        timeouts: Timeouts that differ from the client's.
        files: The uploaded files that it refers to.
        has_files: Whether its conversation has images or other files, perhaps still to be uploaded.
        has_reasoning: Whether its conversation has earlier thoughts.
        reasoning: What is done with them.
        fingerprint: Returns the fingerprint of its conversation; `None` if it has none.
        callbacks: What is called with parts of the response.
        parse_json: Whether to parse the response as a JSON object, if it is one.
        keeps_misfits: Whether calls in the text whose arguments do not fit are calls: the caller checks them.
        tools: The definitions of the tools that the model may call, in wire form.
        requires_call: Whether it must call one.
    """

    requests: Sequence[PredictionRequest]
    label: str
    settings: LlmPredictionConfig
    options: Mapping[str, Any]
    preset: str | None = None
    timeouts: Timeouts = field(default_factory=dict[str, float | None])
    files: tuple[FileHandle, ...] = ()
    has_files: bool = False
    has_reasoning: bool = False
    reasoning: ReasoningOptions = DEFAULT_REASONING
    fingerprint: FingerprintMaker | None = None
    callbacks: Callbacks | None = None
    parse_json: bool = False
    keeps_misfits: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    requires_call: bool = False

    @property
    def forces_call(self) -> bool:
        """Whether a required call that does not come is requested by grammar."""
        return self.requires_call and self.options.get("required_tool_fallback", False)
