"""The client for coroutines: `AsyncClient`, its namespaces, model handles, and the stream of a prediction.

Every method takes its work from a flow and awaits it; `sync.py` is the twin.
"""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

from typing_extensions import Unpack

from lmstudio_integrations.client import _files, _models, _requests
from lmstudio_integrations.client._base import BaseClient, BaseHandle, BaseNamespace, BaseStream, HandleT, LoadConfig
from lmstudio_integrations.client._binding import DEFAULT_TTL, LoadPolicy, OnConfigMismatch, OnProgress, resolve
from lmstudio_integrations.client._files import FileInput
from lmstudio_integrations.client._flows import arun
from lmstudio_integrations.client._link import Link
from lmstudio_integrations.client._prediction import Prediction
from lmstudio_integrations.client._requests import History, PredictionOptions, Texts
from lmstudio_integrations.client._waiters import LoopWaiter
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


class AsyncEvents:
    """Everything that comes of a prediction, in order. Dropping it stops the generation on the server.

    A class rather than an async generator: the `finally` of one that is left early runs late, or never.
    """

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self._ready: deque[PredictionEvent] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PredictionEvent:
        if not self._ready:
            batch = await arun(self._prediction.advance())
            if not batch:
                raise StopAsyncIteration
            self._ready.extend(batch)
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop the generation and take nothing more."""
        self._prediction.abandon()

    def __del__(self) -> None:
        self._prediction.abandon()


class AsyncFragments(AsyncEvents):
    """The text fragments of a prediction."""

    async def __anext__(self) -> LlmPredictionFragment:
        while type(event := await super().__anext__()) is not LlmPredictionFragment:
            pass
        return event


class AsyncPredictionStream(BaseStream):
    """A prediction that is running. Iterate over it for its text fragments, or over `events()` for everything.

    Leaving the iteration early stops the generation on the server. It may be awaited, which gives itself.
    """

    def __init__(self, prediction: Prediction) -> None:
        super().__init__(prediction)
        self._fragments: AsyncFragments | None = None

    def events(self) -> AsyncEvents:
        """Return an iterator over everything that comes: fragments, tool calls, progress, and the end."""
        return AsyncEvents(self._prediction)

    def __aiter__(self) -> AsyncFragments:
        return AsyncFragments(self._prediction)

    async def __anext__(self) -> LlmPredictionFragment:
        if self._fragments is None:
            self._fragments = aiter(self)
        return await anext(self._fragments)

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self

    async def wait_for_result(self) -> PredictionResult:
        """Read the stream to its end and return the result."""
        return await arun(self._prediction.to_end())

    async def aclose(self) -> None:
        """Stop the generation and take nothing more."""
        self._prediction.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Handle(BaseHandle):
    """A model of either kind."""

    async def unload(self) -> None:
        """Unload the instance."""
        await arun(_models.unload_bound(self._link, self.binding))

    @overload
    async def tokenize(self, text: str) -> list[int]: ...
    @overload
    async def tokenize(self, text: Texts) -> list[list[int]]: ...
    async def tokenize(self, text: str | Texts) -> list[int] | list[list[int]]:
        """Return the tokens of a text, or of each of several."""
        tokens = await arun(_models.tokenize(self._link, self.binding, _requests.texts_of(text, "text")))
        return tokens[0] if isinstance(text, str) else tokens

    @overload
    async def count_tokens(self, text: str) -> int: ...
    @overload
    async def count_tokens(self, text: Texts) -> list[int]: ...
    async def count_tokens(self, text: str | Texts) -> int | list[int]:
        """Return the number of tokens of a text, or of each of several."""
        counts = await arun(_models.count_tokens(self._link, self.binding, _requests.texts_of(text, "text")))
        return counts[0] if isinstance(text, str) else counts

    async def get_context_length(self) -> int:
        """Return the window that the instance was loaded with, in tokens."""
        return (await arun(_models.get_info(self._link, self.binding))).context_length


class AsyncLLM(_Handle):
    """A language model."""

    async def respond(self, history: History, **options: Unpack[PredictionOptions]) -> PredictionResult:
        """Ask for the next message of a conversation.

        Args:
            history: A prompt, a `Chat`, or `{"messages": […]}`.
            options: See `PredictionOptions`.

        Raises:
            LMStudioValueError: If the history is empty or a setting unknown.
            LMStudioServerError: If the server cannot answer.
        """
        return await arun(_requests.respond(self._link, self.binding, history, options).to_end())

    def respond_stream(self, history: History, **options: Unpack[PredictionOptions]) -> AsyncPredictionStream:
        """Ask for the next message of a conversation, as a stream. It begins with the first read."""
        return AsyncPredictionStream(_requests.respond(self._link, self.binding, history, options))

    async def complete(self, prompt: str, **options: Unpack[PredictionOptions]) -> PredictionResult:
        """Continue a text, without a chat template."""
        return await arun(_requests.complete(self._link, self.binding, prompt, options).to_end())

    def complete_stream(self, prompt: str, **options: Unpack[PredictionOptions]) -> AsyncPredictionStream:
        """Continue a text, as a stream. It begins with the first read."""
        return AsyncPredictionStream(_requests.complete(self._link, self.binding, prompt, options))

    async def apply_prompt_template(self, history: History, *, tools: Sequence[Tool | Mapping[str, Any]] = ()) -> str:
        """Return a conversation, with the tools offered to the model, as the model would read it."""
        wire = _requests.to_history(history)
        return await arun(_models.apply_prompt_template(self._link, self.binding, wire, tools))

    async def get_info(self) -> LlmInstanceInfo:
        """Return what the server knows of the instance."""
        return cast("LlmInstanceInfo", await arun(_models.get_info(self._link, self.binding)))

    async def get_load_config(self) -> LlmLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return LlmLoadModelConfig.from_fields(await arun(_models.get_load_fields(self._link, self.binding)))


class AsyncEmbeddingModel(_Handle):
    """An embedding model."""

    @overload
    async def embed(self, text: str) -> list[float]: ...
    @overload
    async def embed(self, text: Texts) -> list[list[float]]: ...
    async def embed(self, text: str | Texts) -> list[float] | list[list[float]]:
        """Return the vector of a text, or of each of several, in their order."""
        vectors = await arun(_models.embed(self._link, self.binding, _requests.texts_of(text, "text")))
        return vectors[0] if isinstance(text, str) else vectors

    async def get_info(self) -> EmbeddingModelInstanceInfo:
        """Return what the server knows of the instance."""
        return cast("EmbeddingModelInstanceInfo", await arun(_models.get_info(self._link, self.binding)))

    async def get_load_config(self) -> EmbeddingLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return EmbeddingLoadModelConfig.from_fields(await arun(_models.get_load_fields(self._link, self.binding)))


class _Namespace(BaseNamespace[HandleT]):
    """The models of one kind."""

    async def model(
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
        await arun(resolve(self._link, handle.binding))
        return handle

    async def load_new_instance(
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
        await arun(resolve(self._link, handle.binding))
        return handle

    async def unload(self, model_identifier: str) -> None:
        """Unload an instance."""
        await arun(_models.unload(self._link, self.kind, model_identifier))

    async def list_loaded(self) -> list[HandleT]:
        """Return handles to all that is loaded."""
        return [self._loaded(info.identifier) for info in await arun(_models.list_loaded(self._link, self.kind))]


class AsyncLlmNamespace(_Namespace[AsyncLLM]):
    """The language models: `client.llm`."""

    kind = "llm"
    _handle = AsyncLLM

    async def list_downloaded(self) -> list[LlmInfo]:
        """Return all language models on the server's disk."""
        return cast("list[LlmInfo]", await arun(_models.list_downloaded(self._link, self.kind)))


class AsyncEmbeddingNamespace(_Namespace[AsyncEmbeddingModel]):
    """The embedding models: `client.embedding`."""

    kind = "embedding"
    _handle = AsyncEmbeddingModel

    async def list_downloaded(self) -> list[EmbeddingModelInfo]:
        """Return all embedding models on the server's disk."""
        return cast("list[EmbeddingModelInfo]", await arun(_models.list_downloaded(self._link, self.kind)))


class AsyncFilesNamespace:
    """Files for the model to see: `client.files`."""

    def __init__(self, link: Link[Any]) -> None:
        self._link = link

    async def prepare_image(self, source: FileInput, name: str | None = None) -> FileHandle:
        """Upload a picture for use in a chat.

        Args:
            source: A path, bytes, an open binary file or a data URL; JPEG, PNG or WebP.
            name: The file's name; its extension is put right.

        Raises:
            LMStudioOSError: If the file cannot be read.
            LMStudioValueError: If it is no such picture.
        """
        return await arun(_files.prepare_image(self._link, source, name))


class AsyncClient(BaseClient):
    """A client for coroutines, from any event loop, `async with` or without. See `BaseClient` for the arguments."""

    make_waiter = LoopWaiter

    @property
    def llm(self) -> AsyncLlmNamespace:
        """The language models."""
        return AsyncLlmNamespace(self._link)

    @property
    def embedding(self) -> AsyncEmbeddingNamespace:
        """The embedding models."""
        return AsyncEmbeddingNamespace(self._link)

    @property
    def files(self) -> AsyncFilesNamespace:
        """Files for the model to see."""
        return AsyncFilesNamespace(self._link)

    async def list_loaded_models(self, kind: ModelKind | None = None) -> list[AsyncLLM | AsyncEmbeddingModel]:
        """Return handles to all that is loaded, of one kind or of both."""
        models: list[AsyncLLM | AsyncEmbeddingModel] = []
        if kind != "embedding":
            models += await self.llm.list_loaded()
        if kind != "llm":
            models += await self.embedding.list_loaded()
        return models

    async def list_downloaded_models(self, kind: ModelKind | None = None) -> list[ModelInfo]:
        """Return all models on the server's disk, of one kind or of both."""
        return await arun(_models.list_downloaded(self._link, kind))

    async def aclose(self) -> None:
        """Stop all that this client has open; it cannot be used after that. Other clients notice nothing."""
        self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
