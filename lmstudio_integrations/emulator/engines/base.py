"""What an engine must offer: loading a model, and the loaded model's abilities.

An engine knows nothing of the wire: it yields the events of `types/results.py` and raises `EngineError`.
Queues, time to live and identifiers are the emulator's business.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)
from lmstudio_integrations.types.tools import Tool


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the weights say of a model; the catalog may override each.

    Attributes:
        architecture: For example `llama`.
        params: The number of parameters as people write it, for example `135M`.
        size_bytes: Size on disk.
        quantization: Name and bits, for example `("Q4_1", 4)`.
        max_context_length: The most tokens the model was made for.
        embedding_length: Length of a vector, for embedding models.
        format: `gguf` and the like.
        vision: Whether it sees images.
        tools: Whether it was taught tools.
    """

    architecture: str | None = None
    params: str | None = None
    size_bytes: int = 0
    quantization: tuple[str, int] | None = None
    max_context_length: int = 4096
    embedding_length: int | None = None
    format: str = "gguf"
    vision: bool = False
    tools: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An uploaded picture that a message shows; `data` is the file's content."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load and how.

    Attributes:
        key: The model key under which the catalog knows it.
        kind: What it is for.
        weights: A bundled name or a path; `None` for a scripted model.
        fields: The effective load settings by their full wire keys.
        context_length: Tokens that one prediction may use.
        slots: Predictions that run at once.
        options: What the catalog says for this engine alone (rules, pace, …).
    """

    key: str
    kind: ModelKind
    weights: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    context_length: int = 4096
    slots: int = 4
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prediction.

    Attributes:
        history: The conversation; `None` for raw completion.
        prompt: The text to continue, for raw completion.
        config: The effective settings; those that nobody set have LM Studio's defaults (protocol §5.6).
        tools: The tools that may be called.
        tool_choice: Whether one must be.
        images: Uploaded pictures by the identifiers in the history.
        context_length: Tokens that prompt and answer may use together.
    """

    config: LlmPredictionConfig
    history: ChatHistory | None = None
    prompt: str | None = None
    tools: Sequence[Tool] = ()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    images: Mapping[str, Image] = field(default_factory=dict[str, Image])
    context_length: int = 4096


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an engine's prediction.

    Attributes:
        stop_reason: One of protocol §6.5.
        prompt_tokens: Tokens that were read.
        predicted_tokens: Tokens that were written, the one that ends the sequence included.
        stop_string: The stop string that was found.
        stats: Further members of the statistics, by their wire names (draft counts).
    """

    stop_reason: str
    prompt_tokens: int
    predicted_tokens: int
    stop_string: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict[str, Any])


FaultKind = Literal["drop", "half_close", "corrupt", "unknown_packet"]


@dataclass(frozen=True, slots=True)
class Fault:
    """The line to the client shall break here; the server carries it out, and no packet is sent for it.

    `drop`: abort the client's socket, without a close frame. `half_close`: send nothing more on the socket, end the
    writing side, go on reading. `corrupt`: send a frame that is not JSON, then go on. `unknown_packet`: send a packet
    of a type that no client knows on the prediction's channel, then go on.
    """

    kind: FaultKind


EngineEvent = (
    PromptProgress
    | LlmPredictionFragment
    | ToolCallStart
    | ToolCallName
    | ToolCallArguments
    | ToolCallEnd
    | ToolCallFailed
    | Finished
    | Fault
)
"""What a prediction yields. All but `Finished` and `Fault` are packets as they are (`protocol.prediction.encode`);
`Finished` becomes the success packet; a `Fault` (scripted models only) is an order to the server."""

Progress = Callable[[float], None]
"""Takes how much of a model is loaded, 0.0 to 1.0."""


class LoadedModel(Protocol):
    """One loaded model. Everything is async and may be cancelled; `generate` is cancelled by `aclose()`."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; the last is `Finished`."""
        ...

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text."""
        ...

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text; embedding models add their start and end marks."""
        ...

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation as the model would read it, with the start of the next answer."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class Engine(Protocol):
    """Loads models."""

    name: str

    def metadata(self, weights: str | None, kind: ModelKind) -> ModelMetadata:
        """Return what the weights say, without loading them; cheap enough for a listing."""
        ...

    async def load(self, request: LoadRequest, on_progress: Progress) -> LoadedModel:
        """Load a model.

        Raises:
            EngineError: If that is not possible, with a readable reason.
        """
        ...
