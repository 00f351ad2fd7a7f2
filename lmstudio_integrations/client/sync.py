"""The client for threads: `Client`, its namespaces, model handles, and the stream of a prediction.

Every method takes its work from a flow and waits for it; `asynchronous.py` is the twin.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

from typing_extensions import Unpack

from lmstudio_integrations.client import _files, _models, _requests
from lmstudio_integrations.client._base import BaseClient, BaseHandle, BaseNamespace, BaseStream, HandleT, LoadConfig
from lmstudio_integrations.client._binding import DEFAULT_TTL, LoadPolicy, OnConfigMismatch, OnProgress, resolve
from lmstudio_integrations.client._files import FileInput
from lmstudio_integrations.client._flows import run
from lmstudio_integrations.client._link import Link
from lmstudio_integrations.client._prediction import Prediction
from lmstudio_integrations.client._requests import History, PredictionOptions, Texts
from lmstudio_integrations.client._waiters import ThreadWaiter
from lmstudio_integrations.types.chat import FileHandle
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig
from lmstudio_integrations.types.models import (
    EmbeddingModelInfo,
    EmbeddingModelInstanceInfo,
    LlmInfo,
    LlmInstanceInfo,
    ModelInfo,
    ModelKind,
)
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent, PredictionResult
from lmstudio_integrations.types.tools import Tool


class PredictionStream(BaseStream):
    """A prediction that is running. Iterate over it for its text fragments, or over `events()` for everything.

    Leaving the iteration early stops the generation on the server.
    """

    def __init__(self, prediction: Prediction) -> None:
        super().__init__(prediction)
        self._fragments: Iterator[LlmPredictionFragment] | None = None

    def events(self) -> Iterator[PredictionEvent]:
        """Yield everything that comes, in order: fragments, tool calls, progress, and the end."""
        try:
            while batch := run(self._prediction.advance()):
                yield from batch
        finally:
            self._prediction.abandon()

    def __iter__(self) -> Iterator[LlmPredictionFragment]:
        for event in self.events():
            if type(event) is LlmPredictionFragment:
                yield event

    def __next__(self) -> LlmPredictionFragment:
        if self._fragments is None:
            self._fragments = iter(self)
        return next(self._fragments)

    def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return run(self._prediction.to_end())

    def close(self) -> None:
        """Stop the generation and take nothing more."""
        self._prediction.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Handle(BaseHandle):
    """A model of either kind."""

    def unload(self) -> None:
        """Unload the instance."""
        run(_models.unload_bound(self._link, self.binding))

    @overload
    def tokenize(self, text: str) -> list[int]: ...
    @overload
    def tokenize(self, text: Texts) -> list[list[int]]: ...
    def tokenize(self, text: str | Texts) -> list[int] | list[list[int]]:
        """Return the tokens of a text, or of each of several."""
        tokens = run(_models.tokenize(self._link, self.binding, _requests.texts_of(text, "text")))
        return tokens[0] if isinstance(text, str) else tokens

    @overload
    def count_tokens(self, text: str) -> int: ...
    @overload
    def count_tokens(self, text: Texts) -> list[int]: ...
    def count_tokens(self, text: str | Texts) -> int | list[int]:
        """Return the number of tokens of a text, or of each of several."""
        counts = run(_models.count_tokens(self._link, self.binding, _requests.texts_of(text, "text")))
        return counts[0] if isinstance(text, str) else counts

    def get_context_length(self) -> int:
        """Return the window that the instance was loaded with, in tokens."""
        return run(_models.get_info(self._link, self.binding)).context_length


class LLM(_Handle):
    """A language model."""

    def respond(self, history: History, **options: Unpack[PredictionOptions]) -> PredictionResult:
        """Ask for the next message of a conversation.

        Args:
            history: A prompt, a `Chat`, or `{"messages": […]}`.
            options: See `PredictionOptions`.

        Raises:
            LMStudioValueError: If the history is empty or a setting unknown.
            LMStudioServerError: If the server cannot answer.
        """
        return run(_requests.respond(self._link, self.binding, history, options).to_end())

    def respond_stream(self, history: History, **options: Unpack[PredictionOptions]) -> PredictionStream:
        """Ask for the next message of a conversation, as a stream. It begins with the first read."""
        return PredictionStream(_requests.respond(self._link, self.binding, history, options))

    def complete(self, prompt: str, **options: Unpack[PredictionOptions]) -> PredictionResult:
        """Continue a text, without a chat template."""
        return run(_requests.complete(self._link, self.binding, prompt, options).to_end())

    def complete_stream(self, prompt: str, **options: Unpack[PredictionOptions]) -> PredictionStream:
        """Continue a text, as a stream. It begins with the first read."""
        return PredictionStream(_requests.complete(self._link, self.binding, prompt, options))

    def apply_prompt_template(self, history: History, *, tools: Sequence[Tool | Mapping[str, Any]] = ()) -> str:
        """Return a conversation, with the tools offered to the model, as the model would read it."""
        wire = _requests.to_history(history)
        return run(_models.apply_prompt_template(self._link, self.binding, wire, tools))

    def get_info(self) -> LlmInstanceInfo:
        """Return what the server knows of the instance."""
        return cast("LlmInstanceInfo", run(_models.get_info(self._link, self.binding)))

    def get_load_config(self) -> LlmLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return LlmLoadModelConfig.from_fields(run(_models.get_load_fields(self._link, self.binding)))


class EmbeddingModel(_Handle):
    """An embedding model."""

    @overload
    def embed(self, text: str) -> list[float]: ...
    @overload
    def embed(self, text: Texts) -> list[list[float]]: ...
    def embed(self, text: str | Texts) -> list[float] | list[list[float]]:
        """Return the vector of a text, or of each of several, in their order."""
        vectors = run(_models.embed(self._link, self.binding, _requests.texts_of(text, "text")))
        return vectors[0] if isinstance(text, str) else vectors

    def get_info(self) -> EmbeddingModelInstanceInfo:
        """Return what the server knows of the instance."""
        return cast("EmbeddingModelInstanceInfo", run(_models.get_info(self._link, self.binding)))

    def get_load_config(self) -> EmbeddingLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return EmbeddingLoadModelConfig.from_fields(run(_models.get_load_fields(self._link, self.binding)))


class _Namespace(BaseNamespace[HandleT]):
    """The models of one kind."""

    def model(
        self,
        model_key: str | None = None,
        /,
        *,
        ttl: float | None = DEFAULT_TTL,
        config: LoadConfig | None = None,
        load_policy: LoadPolicy = "get_or_load",
        on_config_mismatch: OnConfigMismatch = "warn",
        on_load_progress: OnProgress | None = None,
    ) -> HandleT:
        """Get a model, loading it if need be; without a key, any that is loaded. See `lazy_model` for the arguments."""
        handle = self.lazy_model(
            model_key,
            ttl=ttl,
            config=config,
            load_policy=load_policy,
            on_config_mismatch=on_config_mismatch,
            on_load_progress=on_load_progress,
        )
        run(resolve(self._link, handle.binding))
        return handle

    def load_new_instance(
        self,
        model_key: str,
        instance_identifier: str | None = None,
        *,
        ttl: float | None = DEFAULT_TTL,
        config: LoadConfig | None = None,
        on_load_progress: OnProgress | None = None,
    ) -> HandleT:
        """Load a further instance; without an identifier the server chooses one. `ttl=None` lets it stay."""
        handle = self._new_instance(model_key, instance_identifier, ttl, config, on_load_progress)
        run(resolve(self._link, handle.binding))
        return handle

    def unload(self, model_identifier: str) -> None:
        """Unload an instance."""
        run(_models.unload(self._link, self.kind, model_identifier))

    def list_loaded(self) -> list[HandleT]:
        """Return handles to all that is loaded."""
        return [self._loaded(info.identifier) for info in run(_models.list_loaded(self._link, self.kind))]


class LlmNamespace(_Namespace[LLM]):
    """The language models: `client.llm`."""

    kind = "llm"
    _handle = LLM

    def list_downloaded(self) -> list[LlmInfo]:
        """Return all language models on the server's disk."""
        return cast("list[LlmInfo]", run(_models.list_downloaded(self._link, self.kind)))


class EmbeddingNamespace(_Namespace[EmbeddingModel]):
    """The embedding models: `client.embedding`."""

    kind = "embedding"
    _handle = EmbeddingModel

    def list_downloaded(self) -> list[EmbeddingModelInfo]:
        """Return all embedding models on the server's disk."""
        return cast("list[EmbeddingModelInfo]", run(_models.list_downloaded(self._link, self.kind)))


class FilesNamespace:
    """Files for the model to see: `client.files`."""

    def __init__(self, link: Link[Any]) -> None:
        self._link = link

    def prepare_image(self, source: FileInput, name: str | None = None) -> FileHandle:
        """Upload a picture for use in a chat.

        Args:
            source: A path, bytes, an open binary file or a data URL; JPEG, PNG or WebP.
            name: The file's name; its extension is put right.

        Raises:
            LMStudioOSError: If the file cannot be read.
            LMStudioValueError: If it is no such picture.
        """
        return run(_files.prepare_image(self._link, source, name))


class Client(BaseClient):
    """A client for threads. See `BaseClient` for the arguments; may be used by many threads at once."""

    make_waiter = ThreadWaiter

    @property
    def llm(self) -> LlmNamespace:
        """The language models."""
        return LlmNamespace(self._link)

    @property
    def embedding(self) -> EmbeddingNamespace:
        """The embedding models."""
        return EmbeddingNamespace(self._link)

    @property
    def files(self) -> FilesNamespace:
        """Files for the model to see."""
        return FilesNamespace(self._link)

    def list_loaded_models(self, kind: ModelKind | None = None) -> list[LLM | EmbeddingModel]:
        """Return handles to all that is loaded, of one kind or of both."""
        models: list[LLM | EmbeddingModel] = []
        if kind != "embedding":
            models += self.llm.list_loaded()
        if kind != "llm":
            models += self.embedding.list_loaded()
        return models

    def list_downloaded_models(self, kind: ModelKind | None = None) -> list[ModelInfo]:
        """Return all models on the server's disk, of one kind or of both."""
        return run(_models.list_downloaded(self._link, kind))

    def close(self) -> None:
        """Stop all that this client has open; it cannot be used after that. Other clients notice nothing."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
