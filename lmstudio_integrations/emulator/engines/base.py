"""The interface of an engine: it loads models, each of which generates, embeds and tokenizes.

An engine does not know the wire: it yields the events of `types/results.py` and raises `EngineError`. The emulator
handles queues, TTLs and identifiers.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.results import PredictionEvent


class EngineError(WireError):
    """An engine cannot do what was requested; the title is in the words of a real server, or of the engine itself."""


def context_overflow(tokens: int, context_length: int) -> EngineError:
    """Return the error for a prompt that does not fit into the context window."""
    # The typing error of the first is LM Studio's own. The last is llama.cpp's.
    return EngineError(
        {
            (): f"Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded "
            f"with context length of only {context_length} tokens, which is not enough. Try to load the model with a "
            "larger context length, or provide a shorter input",
            (0, 4): f"Cannot truncate prompt with n_keep ({tokens}) >= n_ctx ({context_length})",
            (1,): f"request exceeds the available context size ({context_length} tokens)",
        }
    )


def template_failed(message: str) -> EngineError:
    """Return the error for a conversation that the model's template rejects."""
    engine = {"error": {"code": 500, "message": f"Jinja Exception: {message}", "type": "server_error"}}
    return EngineError(
        {
            (): f'Error rendering prompt with jinja template: "{message}".\n\nThis is usually an issue with the '
            "model's prompt template. If you are using a popular model, you can try to search the model under "
            "lmstudio-community, which will have fixed prompt templates. If you cannot find one, you are welcome to "
            "post this issue to our discord or issue tracker on GitHub. Alternatively, if you know how to write jinja "
            "templates, you can override the prompt template in My Models > model settings > Prompt Template.",
            (0, 4): f"Engine protocol predict request returned 500: {dumps(engine)}",
        }
    )


def model_crashed(exit_code: int | None, cause: str | None = None) -> EngineError:
    """Return the error for a worker process that died."""
    title = f"The model has crashed without additional information. (Exit code: {exit_code})"
    return EngineError(title, cause=cause, fatal=True)


def engine_exited(*, generating: bool) -> EngineError:
    """Return the error for an engine that runs as a server, and whose process has ended.

    Args:
        generating: Whether it ends in the middle of a response.
    """
    if generating:
        return EngineError("terminated", fatal=True)
    unknown = {"type": "internal_error", "code": "unknown"}
    return EngineError("Engine protocol predict request failed: fetch failed", error_data=unknown, fatal=True)


def engine_exited_while_loading() -> EngineError:
    """Return the error for an engine that runs as a server, and whose process ends while it loads a model."""
    return load_failed(
        "Engine protocol runtime llama-server for a1B2c3D4e5F6g7H8i9J0k1L2 exited before becoming healthy. exitCode=1, "
        "signal=null"
    )


def load_failed(cause: str, suggestion: str | None = None) -> EngineError:
    """Return the error for a model that could not be loaded."""
    return EngineError("Failed to load model", cause=without_directories(cause), suggestion=suggestion)


def insufficient_resources(gigabytes: float) -> EngineError:
    """Return the error for a load that does not fit, in the words of a real server."""
    return load_failed(
        "Model loading was stopped due to insufficient system resources. Under the current settings, this model "
        f"requires approximately {gigabytes:.2f} GB of memory, and continuing to load it would likely overload your "
        "system and cause it to freeze. If you think this is incorrect, you can adjust the model loading guardrails in "
        "settings."
    )


def without_directories(text: str) -> str:
    """Return a text with each absolute path cut down to its last name: clients must not learn the server's paths."""
    return re.sub(r"""(?<![\w.:/\\~])(?:[A-Za-z]:|~|\\)?[\\/](?:[^\\/\s'"<>|:;,()]+[\\/])*""", "", text)


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The metadata in the weights of a model; the catalog may override each field.

    Attributes:
        architecture: For example `llama`.
        params: The number of parameters, for example `135M`.
        size_bytes: Size on disk.
        quantization: Name and bits, for example `("Q4_1", 4)`.
        max_context_length: The longest supported context in tokens.
        embedding_length: Length of a vector, for embedding models.
        format: `gguf` and the like.
        vision: Whether it supports images.
        tools: Whether it was trained to use tools.
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
class Weights:
    """What an engine knows of weights before it loads or fetches them, for an entry of the catalog.

    Attributes:
        kind: The kind of the model.
        path: The path of the model for clients, `publisher/repository/file`; `None` for a file of the user.
        title: The name of the model for people.
    """

    kind: ModelKind
    path: str | None = None
    title: str | None = None


def guess_kind(name: str) -> ModelKind:
    """Return the kind of a model by its name; LM Studio's keys of embedding models contain `embed`."""
    return "embedding" if "embed" in name.casefold() else "llm"


@dataclass(frozen=True, slots=True)
class Image:
    """An uploaded image in a message; `data` is the content of the file."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A model to load, and its settings.

    Attributes:
        key: The key of the model in the catalog.
        kind: The kind of the model.
        weights: A bundled name or a path; `None` for a scripted model.
        fields: The effective load settings by their full wire keys.
        context_length: Tokens that one prediction may use.
        slots: Predictions that run at once.
        engine_settings: Fields of the catalog for this engine alone (rules, pace, …).
    """

    key: str
    kind: ModelKind
    weights: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    context_length: int = 4096
    slots: int = 4
    engine_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prediction.

    Attributes:
        history: The conversation; `None` for raw completion.
        prompt: The text to continue, for raw completion.
        config: The effective settings; those that are not set have LM Studio's defaults.
        tools: The tools that may be called.
        tool_choice: Whether one must be called.
        images: Uploaded images by the identifiers in the history.
        context_length: Tokens that prompt and response may use together.
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
        stop_reason: One of docs/protocol.md#prediction-stats.
        prompt_tokens: Tokens of the prompt.
        predicted_tokens: Tokens that were generated, including the one that ends the sequence.
        stop_string: The stop string that was found.
        stats: Further stats, by their wire names.
    """

    stop_reason: str
    prompt_tokens: int
    predicted_tokens: int
    stop_string: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict[str, Any])


FaultKind = Literal["drop", "half_close", "corrupt", "unknown_packet"]


@dataclass(frozen=True, slots=True)
class Fault:
    """An order to the server to break the connection at this point; no packet is sent for it.

    `drop`: reset the connection. `half_close`: close the writing side and continue reading.
    `corrupt`: send a frame that is not JSON, then continue. `unknown_packet`: send a packet of an unknown type on the
    prediction's channel, then continue.
    """

    kind: FaultKind


EngineEvent = PredictionEvent | Finished | Fault
"""The events of a prediction. `protocol.prediction.encode` turns them into packets, except for `Finished`, which the
server makes a `PredictionEnd` of, and `Fault` (scripted models only), which is an order to the server."""

Progress = Callable[[float], None]
"""Called with the progress of a load, 0.0 to 1.0."""

OnBytes = Callable[[int, int], None]
"""Called with the bytes downloaded so far and the total bytes."""


class EngineModel(Protocol):
    """A model that an engine has loaded. All methods are async and may be cancelled; `aclose()` cancels `generate`."""

    base_fields: Mapping[str, Any]
    """The default settings of predictions that are the model's own, by their wire keys."""
    chat_template: str
    """The chat template in Jinja; empty if there is none."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; the last is `Finished`."""
        ...

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text."""
        ...

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text; embedding models add their start and end tokens."""
        ...

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation as the model would read it, with the start of the next message."""
        ...

    async def decide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answers to the questions of a request, both in the form of docs/protocol.md#decisions."""
        ...

    async def close(self) -> None:
        """Release all resources."""


class Engine(Protocol):
    """Loads models."""

    name: str

    def metadata(self, weights: str | None, kind: ModelKind) -> ModelMetadata:
        """Return the metadata of weights without loading them; cheap enough for a listing."""
        ...

    async def load(self, request: LoadRequest, on_progress: Progress) -> EngineModel:
        """Load a model.

        Raises:
            EngineError: If that fails, with a readable reason.
        """
        ...


@runtime_checkable
class WeightsEngine(Engine, Protocol):
    """An engine whose models have weights. It answers what the catalog asks about these."""

    def identify(self, weights: str) -> Weights:
        """Return what is known of weights, a bundled name or a path, without loading them."""
        ...

    def find(self, folder: Path) -> list[Path]:
        """Return the files of a folder, and of folders in it, that are the weights of a model.

        Files that cannot be read, or are not regular files, are skipped with a warning in the log.
        """
        ...

    async def download(self, weights: str, on_bytes: OnBytes) -> None:
        """Ensure that weights can be loaded. Bundled ones are fetched; a file is already there, and stays there.

        Args:
            weights: A bundled name or a path.
            on_bytes: Called with the progress, at least at the beginning and at the end.

        Raises:
            OSError: If they are not available, or cannot be read or stored.
        """
        ...
