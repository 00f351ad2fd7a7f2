"""The client for coroutines: `AsyncClient`, its namespaces, model handles, and prediction streams.

Every method runs a flow and awaits it; `sync.py` is the same for threads. Users and adapters call it.
"""

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias, cast, overload

from typing_extensions import Unpack, override

from lmstudio_integrations.client.api.base import (
    BaseClient,
    BaseDownloaded,
    BaseModelHandle,
    BaseModelNamespace,
    BaseNamespace,
    DownloadedT,
    HandleT,
    InfoT,
    LoadConfig,
    ModelParameters,
    ModelT_co,
    checked_kind,
    load_settings,
    new_state,
)
from lmstudio_integrations.client.api.downloads import AsyncRepositoryNamespace
from lmstudio_integrations.client.api.plugins import AsyncPluginsNamespace
from lmstudio_integrations.client.api.responses import AsyncChatHandle, AsyncPredictionStream
from lmstudio_integrations.client.embeddings.embedder import Embedder
from lmstudio_integrations.client.embeddings.long_texts import EmbeddingRequest
from lmstudio_integrations.client.files import uploads
from lmstudio_integrations.client.files.uploads import FileInput, RetrievalParameters
from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.chat_templates import TemplateOpts, Tools
from lmstudio_integrations.client.models.loading import DEFAULT_TTL
from lmstudio_integrations.client.models.model import Texts
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.requests import History, PredictionParameters, PromptParameters
from lmstudio_integrations.client.predictions.reranking.rerank import RerankParameters
from lmstudio_integrations.client.support.arguments import text_of
from lmstudio_integrations.client.transport.connect.find import is_reachable, locate
from lmstudio_integrations.client.transport.flows import arun
from lmstudio_integrations.client.transport.mailboxes import LoopMailbox, Mailbox
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, ModelKind
from lmstudio_integrations.types.files import FileHandle, ParsedDocument, RetrievalResult
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.models import (
    ChatTemplateInfo,
    ContextUse,
    EmbeddingModelInfo,
    EmbeddingModelInstanceInfo,
    InstanceProcessingState,
    LlmInfo,
    LlmInstanceInfo,
    ModelInstanceInfo,
    ModelUsageEstimate,
    ServerVersion,
)
from lmstudio_integrations.types.reasoning import ReasoningReplay
from lmstudio_integrations.types.references import ModelReference
from lmstudio_integrations.types.reranking import RerankResult
from lmstudio_integrations.types.results import PredictionResult


class AsyncModelHandle(BaseModelHandle[ModelT_co]):
    """A model of either kind."""

    async def unload(self) -> None:
        """Unload the instance."""
        await arun(self.model.unload())

    async def unload_if_loaded_here(self) -> None:
        """Unload the instance if this handle loaded it, not if it found it loaded. The next call loads it again."""
        await arun(self.model.unload_if_loaded_here())

    @overload
    async def tokenize(self, input: str) -> list[int]: ...
    @overload
    async def tokenize(self, input: Texts) -> list[list[int]]: ...
    async def tokenize(self, input: str | Texts) -> list[int] | list[list[int]]:  # noqa: A002 - the official name
        """Return the tokens of a text, or of each of several."""
        return await arun(self.model.tokenize(input))

    @overload
    async def count_tokens(self, input: str) -> int: ...
    @overload
    async def count_tokens(self, input: Texts) -> list[int]: ...
    async def count_tokens(self, input: str | Texts) -> int | list[int]:  # noqa: A002 - the official name
        """Return the number of tokens of a text, or of each of several."""
        return await arun(self.model.count_tokens(input))

    async def get_context_length(self) -> int:
        """Return the context length that the instance was loaded with, in tokens."""
        return (await arun(self.model.get_info(load=False))).context_length

    async def get_processing_state(self) -> InstanceProcessingState:
        """Return what the instance is doing, and how many requests are queued."""
        return await arun(self.model.get_processing_state())


class AsyncLLM(AsyncChatHandle[LanguageModel], AsyncModelHandle[LanguageModel]):
    """A language model."""

    async def prepare_images(
        self, images: Sequence[FileInput], *, allow_private_image_hosts: bool = False
    ) -> list[FileHandle]:
        """Upload images for a conversation with this model; see `LLM.prepare_images`."""
        return await arun(self.model.prepare_images(images, allow_private_hosts=allow_private_image_hosts))

    async def complete(self, prompt: str, **parameters: Unpack[PredictionParameters]) -> PredictionResult:
        """Continue a text, without a chat template."""
        return await arun(self.model.prepare_completion(prompt, parameters).to_end())

    def complete_stream(self, prompt: str, **parameters: Unpack[PredictionParameters]) -> AsyncPredictionStream:
        """Stream the continuation of a text. The first read, or `start()`, sends the request."""
        return AsyncPredictionStream(self.model.prepare_completion(prompt, parameters))

    async def warm(
        self, prefix: History | None = None, tools: Iterable[ToolInput] = (), **parameters: Unpack[PredictionParameters]
    ) -> None:
        """Process a system prompt and tools now; see `LLM.warm`."""
        await arun(self.model.prefill(prefix, parameters, tools))

    async def rerank(
        self, query: str, texts: Sequence[str], **parameters: Unpack[RerankParameters]
    ) -> list[RerankResult]:
        """Return how relevant texts are to a query, best first; see `LLM.rerank`."""
        return await arun(self.model.rerank(query, texts, parameters))

    async def apply_prompt_template(
        self,
        history: History,
        opts: TemplateOpts | None = None,
        *,
        tools: Tools = (),
        **parameters: Unpack[PromptParameters],
    ) -> str:
        """Return a conversation, with the tools, as the prompt that the model would get.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            opts: A dict with `omit_bos_token` or `omit_eos_token`, to omit the special token at the beginning or end.
            tools: The definitions of the tools.
            parameters: See `PromptParameters`.
        """
        return await arun(self.model.apply_prompt_template(history, opts or {}, tools, parameters))

    async def get_context_use(self, history: History, **parameters: Unpack[PromptParameters]) -> ContextUse:
        """Return how many tokens of the context window a conversation takes, and whether it fits.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            parameters: See `PromptParameters`.
        """
        return await arun(self.model.get_context_use(history, parameters))

    async def get_reasoning_replay(self) -> ReasoningReplay:
        """Return what the model's chat template does with thoughts of earlier messages; load the model if necessary.

        Measured once per instance, with up to three requests. It decides what `send_reasoning="auto"` sends.
        """
        return await arun(self.model.get_reasoning_replay())

    async def get_info(self, *, load: bool = False) -> LlmInstanceInfo:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return cast("LlmInstanceInfo", await arun(self.model.get_info(load=load)))

    async def get_chat_template_info(self) -> ChatTemplateInfo:
        """Return what the model's chat template does with conversations; load the model if necessary."""
        return await arun(self.model.get_chat_template_info())

    async def get_load_config(self) -> LlmLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return LlmLoadModelConfig.from_fields(await arun(self.model.get_load_fields()))


class AsyncEmbeddingModel(AsyncModelHandle[Embedder]):
    """An embedding model."""

    @overload
    async def embed(self, input: str, *, show_progress: bool = False) -> list[float]: ...
    @overload
    async def embed(self, input: Texts, *, show_progress: bool = False) -> list[list[float]]: ...
    async def embed(
        self,
        input: str | Texts,  # noqa: A002 - the official name
        *,
        show_progress: bool = False,
    ) -> list[float] | list[list[float]]:
        """Return the vector of a text, or of each of several, in their order, with a progress bar for several."""
        return await arun(self.model.vectors_of(input, show_progress=show_progress))

    async def embed_texts(
        self,
        request: EmbeddingRequest,
        *,
        max_concurrency: int | None = None,
        show_progress: bool = False,
    ) -> list[list[float]]:
        """Return the vectors of texts. Some of them may be too long for the model.

        Args:
            request: The texts, and what to do with those that are too long.
            max_concurrency: How many such calls run at once on this model: no more than each of them allows. There is
                no limit by default.
            show_progress: Whether to show a progress bar. Needs tqdm.

        Raises:
            LMStudioContextOverflowError: If a text is too long and the policy is `error`.
        """
        return await arun(
            self.model.vectors_of_long(request, max_concurrency=max_concurrency, show_progress=show_progress)
        )

    async def get_info(self, *, load: bool = False) -> EmbeddingModelInstanceInfo:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return cast("EmbeddingModelInstanceInfo", await arun(self.model.get_info(load=load)))

    async def get_load_config(self) -> EmbeddingLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return EmbeddingLoadModelConfig.from_fields(await arun(self.model.get_load_fields()))


class AsyncModelNamespace(BaseModelNamespace[HandleT, DownloadedT]):
    """The models of one kind."""

    async def model(self, model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> HandleT:
        """Get a model, and load it if necessary; without a key, get any loaded one.

        Args:
            model_key: Key or identifier.
            parameters: See `ModelParameters`.

        Raises:
            LMStudioModelNotFoundError: If there is no such model, or none is loaded.
            LMStudioWrongModelKindError: If it is of the other kind.
        """
        handle = self.handle_for(new_state(self.kind, model_key, {"ttl": DEFAULT_TTL, **parameters}))
        await arun(handle.model.load())
        return handle

    async def load_new_instance(
        self, model_key: str, instance_identifier: str | None = None, **parameters: Unpack[ModelParameters]
    ) -> HandleT:
        """Load another instance; without an identifier the server chooses one."""
        with_ttl: ModelParameters = {"ttl": DEFAULT_TTL, **parameters, "load_policy": "new_instance"}
        handle = self.handle_for(new_state(self.kind, text_of(model_key, "model_key"), with_ttl, instance_identifier))
        await arun(handle.model.load())
        return handle

    async def unload(self, model_identifier: str) -> None:
        """Unload an instance."""
        await arun(queries.unload(self._operation(), self.kind, model_identifier))

    async def get_model_info(self, model_specifier: ModelReference) -> ModelInstanceInfo:
        """Return the info of a loaded instance, by identifier or by properties (`{"vision": True}`)."""
        return await arun(queries.look_up(self._operation(), self.kind, model_specifier))

    async def list_loaded(self) -> list[HandleT]:
        """Return handles to all loaded instances."""
        return [self._loaded(info) for info in await arun(queries.list_loaded(self._operation(), self.kind))]

    async def list_downloaded(self) -> list[DownloadedT]:
        """Return all models of this kind on the server's disk."""
        return [self.as_downloaded(info) for info in await arun(queries.list_downloaded(self._operation(), self.kind))]

    async def estimate_usage(self, model_key: str, *, config: LoadConfig | None = None) -> ModelUsageEstimate:
        """Return how much memory a model would take. Not every server knows."""
        return await arun(
            queries.estimate_usage(self._operation(), self.kind, model_key, load_settings(self.kind, config))
        )


class AsyncDownloadedModel(BaseDownloaded[HandleT, InfoT]):
    """A model on the server's disk."""

    _namespace: AsyncModelNamespace[HandleT, Any]

    async def model(self, **parameters: Unpack[ModelParameters]) -> HandleT:
        """Get the model, and load it if necessary."""
        return await self._namespace.model(self._key(), **parameters)

    async def load_new_instance(
        self, instance_identifier: str | None = None, **parameters: Unpack[ModelParameters]
    ) -> HandleT:
        """Load another instance of the model."""
        return await self._namespace.load_new_instance(self._key(), instance_identifier, **parameters)


class AsyncDownloadedLlm(AsyncDownloadedModel[AsyncLLM, LlmInfo]):
    """A language model on the server's disk."""


class AsyncDownloadedEmbeddingModel(AsyncDownloadedModel[AsyncEmbeddingModel, EmbeddingModelInfo]):
    """An embedding model on the server's disk."""


AnyAsyncDownloadedModel: TypeAlias = AsyncDownloadedLlm | AsyncDownloadedEmbeddingModel


class AsyncLlmNamespace(AsyncModelNamespace[AsyncLLM, AsyncDownloadedLlm]):
    """The language models: `client.llm`."""

    kind: ClassVar[ModelKind] = "llm"
    _downloaded = AsyncDownloadedLlm

    @override
    def handle_for(self, state: ModelState) -> AsyncLLM:
        return AsyncLLM(LanguageModel(self._context, state))


class AsyncEmbeddingNamespace(AsyncModelNamespace[AsyncEmbeddingModel, AsyncDownloadedEmbeddingModel]):
    """The embedding models: `client.embedding`."""

    kind: ClassVar[ModelKind] = "embedding"
    _downloaded = AsyncDownloadedEmbeddingModel

    @override
    def handle_for(self, state: ModelState) -> AsyncEmbeddingModel:
        return AsyncEmbeddingModel(Embedder(self._context, state))


class AsyncSystemNamespace(BaseNamespace):
    """The server itself: `client.system`."""

    async def list_downloaded_models(self, namespace: ModelKind | None = None) -> list[AnyAsyncDownloadedModel]:
        """Return all models on the server's disk, of one kind or of both."""
        infos = await arun(queries.list_downloaded(self._operation(), checked_kind(namespace)))
        llm, embedding = AsyncLlmNamespace(self._context), AsyncEmbeddingNamespace(self._context)
        return [llm.as_downloaded(info) if info.type == "llm" else embedding.as_downloaded(info) for info in infos]

    async def get_version(self) -> ServerVersion:
        """Return the version of LM Studio."""
        return await arun(queries.version(self._operation()))


class AsyncFilesNamespace(BaseNamespace):
    """Images for the model, and documents to search: `client.files`."""

    async def prepare_image(self, src: FileInput, name: str | None = None) -> FileHandle:
        """Upload an image for use in a chat. Reading and encoding a file blocks the event loop.

        Args:
            src: A path, bytes, an open binary file or a data URL; JPEG, PNG or WebP.
            name: The file's name; its extension is corrected if it does not match the content.

        Raises:
            LMStudioOSError: If the file cannot be read.
            LMStudioValueError: If it is not such an image.
        """
        return await arun(uploads.prepare_image(self._operation(), src, name))

    async def prepare_file(self, src: FileInput, name: str | None = None) -> FileHandle:
        """Upload a file of any type. The extension of its name decides whether it is a document.

        Reading and encoding a file blocks the event loop.
        """
        return await arun(uploads.prepare_file(self._operation(), src, name))

    async def parse_document(
        self, file: FileHandle, *, on_progress: Callable[[float], Any] | None = None, show_progress: bool = False
    ) -> ParsedDocument:
        """Return the text of an uploaded document. The callback takes values from 0.0 to 1.0; a bar shows them."""
        return await arun(uploads.parse_document(self._operation(), file, on_progress, show_progress=show_progress))

    async def retrieve(
        self, query: str, files: Sequence[FileHandle], **parameters: Unpack[RetrievalParameters]
    ) -> RetrievalResult:
        """Return the passages of uploaded documents that are relevant to a query. See `RetrievalParameters`."""
        return await arun(uploads.retrieve(self._operation(), query, files, parameters))


class AsyncClient(BaseClient):
    """A client for coroutines, from any event loop, `async with` or without. See `BaseClient` for the arguments.

    Setup:
        As for `Client`. Its guide also shows structured output, images, reasoning and statistics; the methods have the
        same names here. `await client.aclose()`, or the end of `async with`, closes the client.

    Instantiate:
        A lazy handle gets or loads its model on first use.

        ```python
        import asyncio

        import lmstudio_integrations as lms

        client = lms.AsyncClient()
        model = client.llm.lazy_model("qwen/qwen3-4b", ttl=600)
        ```

    Invoke:
        ```python
        async def invoke() -> None:
            print(await model.respond("Why is the sky blue?"))

        asyncio.run(invoke())
        ```

    Stream:
        ```python
        async def stream() -> None:
            async for fragment in model.respond_stream("Why is the sky blue?"):
                print(fragment.content, end="", flush=True)

        asyncio.run(stream())
        ```

    Call tools:
        ```python
        async def pier(destination: str) -> str:
            "Return the pier of the ferries to a destination."
            return f"Ferries to the {destination} leave from pier 7."

        async def act() -> None:
            question = "Where does the ferry to the island leave?"
            await model.act(question, [pier], on_message=print)

        asyncio.run(act())
        ```

    Embeddings:
        ```python
        key = "text-embedding-all-minilm-l6-v2"
        embedder = client.embedding.lazy_model(key, load_policy="explicit")
        print(len(asyncio.run(embedder.embed("The ferry takes twenty minutes."))))
        ```
    """

    mailbox_type: ClassVar[type[Mailbox]] = LoopMailbox

    @property
    def llm(self) -> AsyncLlmNamespace:
        """The language models."""
        return AsyncLlmNamespace(self._context)

    @property
    def embedding(self) -> AsyncEmbeddingNamespace:
        """The embedding models."""
        return AsyncEmbeddingNamespace(self._context)

    @property
    def system(self) -> AsyncSystemNamespace:
        """The server itself."""
        return AsyncSystemNamespace(self._context)

    @property
    def files(self) -> AsyncFilesNamespace:
        """Images for the model, and documents to search."""
        return AsyncFilesNamespace(self._context)

    @property
    def repository(self) -> AsyncRepositoryNamespace:
        """Models to download."""
        return AsyncRepositoryNamespace(self._context)

    @property
    def plugins(self) -> AsyncPluginsNamespace:
        """Plugins and MCP servers."""
        return AsyncPluginsNamespace(self._context)

    async def list_loaded_models(self, namespace: ModelKind | None = None) -> list[AsyncLLM | AsyncEmbeddingModel]:
        """Return handles to all loaded instances, of one kind or of both."""
        llms = [] if checked_kind(namespace) == "embedding" else await self.llm.list_loaded()
        return [*llms, *([] if namespace == "llm" else await self.embedding.list_loaded())]

    async def list_downloaded_models(self, namespace: ModelKind | None = None) -> list[AnyAsyncDownloadedModel]:
        """Return all models on the server's disk, of one kind or of both."""
        return await self.system.list_downloaded_models(namespace)

    async def prepare_image(self, src: FileInput, name: str | None = None) -> FileHandle:
        """Upload an image for use in a chat: `client.files.prepare_image`."""
        return await self.files.prepare_image(src, name)

    @classmethod
    async def is_valid_api_host(cls, api_host: str) -> bool:
        """Return whether an LM Studio responds at an address; false if it is not a valid address."""
        return await arun(is_reachable(api_host, cls.mailbox_type))

    @classmethod
    async def find_default_local_api_host(cls) -> str | None:
        """Return the address of the LM Studio on this machine, if there is one."""
        return await arun(locate(None, cls.mailbox_type))

    async def aclose(self) -> None:
        """Close everything that this client has open. It cannot be used after that; other clients are not affected."""
        self._context.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
