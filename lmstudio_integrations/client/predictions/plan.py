"""What a prediction requests: `requests.py` makes a plan from the parameters of a call, `prediction.py` runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.callbacks import Callbacks
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.protocol.endpoints import Channel, Namespace
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.prompt_fingerprint import FingerprintMaker
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.reasoning import DEFAULT_REASONING, ReasoningOptions


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
