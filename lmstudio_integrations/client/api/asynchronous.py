"""The client for coroutines, in any event loop: `AsyncClient`, its namespaces, and what they return.

Every method runs a flow. `python -m tools.sync_client` writes `sync.py`, which is the same for threads, from
`asynchronous.py`, so the docstrings must be right for both. Users and adapters call both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, Union, cast, overload

from typing_extensions import Unpack, override

import lmstudio_integrations as lms
from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations.client.api.base import (
    BaseClient,
    BaseDownloaded,
    BaseModelHandle,
    BaseModelNamespace,
    DownloadedT,
    HandleT,
    InfoT,
    LoadConfig,
    ModelParameters,
    ModelT_co,
    checked_choice,
    checked_kind,
    downloaded,
    load_settings,
    model_of,
    new_state,
)
from lmstudio_integrations.client.api.responses import AsyncPredictionStream
from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.files import uploads
from lmstudio_integrations.client.files.uploads import FileInput, PendingHistory
from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.chat_templates import TemplateOpts, Tools
from lmstudio_integrations.client.models.loading import DEFAULT_TTL, plan_memory
from lmstudio_integrations.client.models.model import Texts
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.plan import History, PredictionParameters, PromptParameters
from lmstudio_integrations.client.support.arguments import TIMEOUTS, flag_of, text_of
from lmstudio_integrations.client.transport.base_namespace import BaseNamespace
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.connect.discovery import is_reachable, locate
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.types.config import (
    EmbeddingLoadModelConfig,
    Evict,
    LlmLoadModelConfig,
    LlmPredictionConfig,
    ModelKind,
)
from lmstudio_integrations.types.embedding_prefixes import Purpose
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.machines import LinkStatus
from lmstudio_integrations.types.models import (
    ChatTemplateInfo,
    ContextUse,
    EmbeddingModelInfo,
    EmbeddingModelInstanceInfo,
    InstanceProcessingState,
    LlmInfo,
    LlmInstanceInfo,
    ModelInfo,
    ModelInstanceInfo,
    ModelReference,
    ModelUsageEstimate,
    ServerVersion,
)
from lmstudio_integrations.types.results import PredictionResult


class AsyncHandle(BaseModelHandle[ModelT_co]):
    """A model of any kind."""

    async def unload(self) -> None:
        """Unload the instance."""
        await arun(self._model.unload())

    async def unload_if_loaded_here(self) -> None:
        """Unload the instance if this handle loaded it, not if it found it loaded. The next call loads it again."""
        await arun(self._model.unload_if_loaded_here())

    async def get_context_length(self) -> int:
        """Return the context length that the instance was loaded with, in tokens."""
        info = await arun(self._model.get_info(load=False))
        return info.context_length

    async def get_processing_state(self) -> InstanceProcessingState:
        """Return what the instance is doing, and how many requests are queued."""
        return await arun(self._model.get_processing_state())


class AsyncModelHandle(AsyncHandle[ModelT_co]):
    """A model that has a tokenizer."""

    @overload
    async def tokenize(self, input: str) -> list[int]: ...
    @overload
    async def tokenize(self, input: Texts) -> list[list[int]]: ...
    async def tokenize(self, input: str | Texts) -> list[int] | list[list[int]]:  # noqa: A002 - the official name
        """Return the tokens of a text, or of each of several."""
        return await arun(self._model.tokenize(input))

    @overload
    async def count_tokens(self, input: str) -> int: ...
    @overload
    async def count_tokens(self, input: Texts) -> list[int]: ...
    async def count_tokens(self, input: str | Texts) -> int | list[int]:  # noqa: A002 - the official name
        """Return the number of tokens of a text, or of each of several."""
        return await arun(self._model.count_tokens(input))


class AsyncLLM(AsyncModelHandle[LanguageModel]):
    """A language model."""

    async def respond(self, history: History, **parameters: Unpack[PredictionParameters]) -> PredictionResult:
        """Return the next message of a conversation.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            parameters: See `PredictionParameters`.

        Raises:
            LMStudioValueError: If the history is empty or a setting unknown.
            LMStudioServerError: If the server reports an error.
        """
        return await arun(self._model.prepare_response(history, parameters).to_end())

    def respond_stream(
        self, history: History | PendingHistory, **parameters: Unpack[PredictionParameters]
    ) -> AsyncPredictionStream:
        """Stream the next message of a conversation. The first read, or `start()`, sends the request."""
        return AsyncPredictionStream(self._model.prepare_response(history, parameters))

    async def act(
        self, chat: History, tools: Iterable[ToolInput], **parameters: "Unpack[lms.ActParameters]"
    ) -> "lms.ActResult":
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
        with door("`act`"):
            from lmstudio_integrations.client.predictions.tool_loop.act import Act  # noqa: PLC0415 - a leaf
            from lmstudio_integrations.client.predictions.tool_loop.runners import TaskRunner  # noqa: PLC0415 - a leaf
        act = Act(self._model, chat, tools, parameters)
        async with TaskRunner() as runner:
            return await arun(act.to_end(runner))

    async def prepare_images(
        self, images: Sequence[FileInput], *, allow_private_image_hosts: bool = False
    ) -> list[FileHandle]:
        """Upload images for a conversation with this model.

        Args:
            images: What `files.prepare_image` takes, or http and https URLs, from which images are downloaded.
            allow_private_image_hosts: Whether images may also come from addresses that are not public, such as this
                machine.

        Raises:
            LMStudioImageDownloadError: If an image cannot or must not be downloaded.
            LMStudioOSError: If a file cannot be read.
            LMStudioValueError: If it is not an image of a type that LM Studio supports.
        """
        return await arun(self._model.prepare_images(images, allow_private_hosts=allow_private_image_hosts))

    async def complete(self, prompt: str, **parameters: Unpack[PredictionParameters]) -> PredictionResult:
        """Continue a text, without a chat template."""
        return await arun(self._model.prepare_completion(prompt, parameters).to_end())

    def complete_stream(self, prompt: str, **parameters: Unpack[PredictionParameters]) -> AsyncPredictionStream:
        """Stream the continuation of a text. The first read, or `start()`, sends the request."""
        return AsyncPredictionStream(self._model.prepare_completion(prompt, parameters))

    async def warm(
        self,
        prefix: History | None = None,
        tools: Iterable[ToolInput] = (),
        *,
        keep_warm: bool = False,
        **parameters: Unpack[PredictionParameters],
    ) -> None:
        """Process a system prompt and tools now, so that the first question waits only for its own tokens.

        The server keeps them in its prompt cache until other prompts need the space. Loads the model if necessary.

        Args:
            prefix: The system prompt, a `Chat`, or a list of messages. Without it, only tools are processed.
            tools: The tools of the questions, as `act` takes them.
            keep_warm: Whether the same is processed again, before the next call of this handle, when the instance is a
                new one: after its TTL, a crash or a restart. The call waits for it. `False` ends an earlier `True`.
            parameters: Those of the questions, such as `config`; see `PredictionParameters`. One token is generated. Of
                the callbacks, only `on_prompt_processing_progress` is called.

        Raises:
            LMStudioValueError: If the prefix, a tool or a setting is invalid.
            LMStudioServerError: If the server reports an error.
        """
        await arun(self._model.warm(prefix, parameters, tools, keep_warm=flag_of(keep_warm, "keep_warm")))

    async def rerank(
        self, query: str, texts: Sequence[str], **parameters: "Unpack[lms.RerankParameters]"
    ) -> "list[lms.RerankResult]":
        """Return how relevant texts are to a query, best first.

        Each text is one call, in which the model generates one token: the scores are the probabilities of yes and no.
        Loads the model if necessary. Rerankers of the Qwen3 kind are asked as they were trained, other models through
        their chat template. Special tokens in the query and in the texts are taken apart.

        Args:
            query: The query.
            texts: The texts; of those that are too long for the model, the beginning is scored.
            parameters: See `RerankParameters`.

        Raises:
            LMStudioContextOverflowError: If the query leaves no room for a text.
            LMStudioUnsupportedError: If the model, or the runtime of the server, cannot do this.
            LMStudioValueError: If an argument is invalid.
        """
        return await arun(self._model.rerank(query, texts, parameters))

    async def decide(
        self,
        state: object,
        questions: "Mapping[str, lms.Question | Mapping[str, Any]]",
        **parameters: "Unpack[lms.DecideParameters]",
    ) -> "lms.Decision":
        """Return the answers to questions about a state, with their probabilities.

        Each question is one prediction of one token for each order of its options; the prompts begin with the state,
        which is processed once. Loads the model if necessary. Reasoning is off. Special tokens in the state and in the
        questions are taken apart. Of a model's message in the state, the text and the calls are judged, not the
        thoughts.

        Args:
            state: Text, or JSON such as a list of messages with role and content. Dates and pydantic objects in it
                become JSON.
            questions: The questions by their ids: `Noul`, `Choice`, `Score`, or dicts with the same members.
            parameters: See `DecideParameters`.

        Raises:
            LMStudioContextOverflowError: If the state and a question do not fit into the context window.
            LMStudioUnsupportedError: If the model, or the runtime of the server, cannot do this.
            LMStudioValueError: If an argument is invalid.
        """
        return await arun(self._model.decide(state, questions, parameters))

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
        return await arun(self._model.apply_prompt_template(history, opts or {}, tools, parameters))

    async def get_context_use(self, history: History, **parameters: Unpack[PromptParameters]) -> ContextUse:
        """Return how many tokens of the context window a conversation takes, and whether it fits.

        Args:
            history: A prompt, a `Chat`, or a list of messages with role and content.
            parameters: See `PromptParameters`.
        """
        return await arun(self._model.get_context_use(history, parameters))

    async def get_reasoning_replay(self) -> "lms.ReasoningReplay":
        """Return what the model's chat template does with thoughts of earlier messages; load the model if necessary.

        Measured once per instance, with up to three requests. It decides what `send_reasoning="auto"` sends.
        """
        return await arun(self._model.get_reasoning_replay())

    async def get_info(self, *, load: bool = False) -> LlmInstanceInfo:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return cast("LlmInstanceInfo", await arun(self._model.get_info(load=load)))

    async def get_chat_template_info(self) -> ChatTemplateInfo:
        """Return what the model's chat template does with conversations; load the model if necessary."""
        return await arun(self._model.get_chat_template_info())

    async def get_load_config(self) -> LlmLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return LlmLoadModelConfig.from_fields(await arun(self._model.get_load_fields()))

    async def get_base_config(self) -> LlmPredictionConfig:
        """Return the settings of a prediction that sends none: the server's defaults, and those of the model.

        Settings that have no name here are in `raw`. The server may fill in defaults of its own, so `prompt_template`
        need not be the template that the model uses.

        Raises:
            LMStudioUnsupportedError: If the server is too old to know them.
        """
        return LlmPredictionConfig.from_fields(await arun(self._model.get_base_fields()))


class AsyncEmbeddingModel(AsyncModelHandle[Embedder]):
    """An embedding model."""

    @overload
    async def embed(
        self, input: str, *, purpose: Purpose | None = None, show_progress: bool = False
    ) -> list[float]: ...
    @overload
    async def embed(
        self, input: Texts, *, purpose: Purpose | None = None, show_progress: bool = False
    ) -> list[list[float]]: ...
    async def embed(
        self,
        input: str | Texts,  # noqa: A002 - the official name
        *,
        purpose: Purpose | None = None,
        show_progress: bool = False,
    ) -> list[float] | list[list[float]]:
        """Return the vector of a text, or of each of several, in their order.

        Args:
            input: The text or the texts.
            purpose: `query` or `document`: each text gets the prefix that the adapters put before it, if the model is
                named by a key of a known family. Without it, texts are sent as they are.
            show_progress: Whether to draw a progress bar for several texts.

        Raises:
            LMStudioServerError: If the server fails.
            LMStudioValueError: If an argument is invalid.
        """
        return await arun(self._model.vectors_of(input, purpose, show_progress=show_progress))

    async def get_info(self, *, load: bool = False) -> EmbeddingModelInstanceInfo:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return cast("EmbeddingModelInstanceInfo", await arun(self._model.get_info(load=load)))

    async def get_load_config(self) -> EmbeddingLoadModelConfig:
        """Return the settings that the instance was loaded with."""
        return EmbeddingLoadModelConfig.from_fields(await arun(self._model.get_load_fields()))


AnyAsyncModel: TypeAlias = Union[AsyncLLM, AsyncEmbeddingModel, "lms.AsyncDecisionModel"]


class AsyncModelNamespace(BaseModelNamespace[HandleT, DownloadedT]):
    """The models of one kind."""

    async def model(self, model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> HandleT:
        """Get a model, and load it if necessary; without a key, get any loaded one.

        Args:
            model_key: Key or identifier.
            parameters: See `ModelParameters`.

        Raises:
            LMStudioModelNotFoundError: If there is no such model, or none is loaded.
            LMStudioWrongModelKindError: If it is of another kind.
        """
        handle = self._handle_for(new_state(self._kind, model_key, {"ttl": DEFAULT_TTL, **parameters}))
        await arun(model_of(handle).load())
        return handle

    async def load_new_instance(
        self, model_key: str, instance_identifier: str | None = None, **parameters: Unpack[ModelParameters]
    ) -> HandleT:
        """Load another instance; without an identifier the server chooses one."""
        with_ttl: ModelParameters = {"ttl": DEFAULT_TTL, **parameters, "load_policy": "new_instance"}
        handle = self._handle_for(new_state(self._kind, text_of(model_key, "model_key"), with_ttl, instance_identifier))
        await arun(model_of(handle).load())
        return handle

    async def unload(self, model_identifier: str, *, device: str | None = None) -> None:
        """Unload an instance.

        Args:
            model_identifier: Its identifier.
            device: The machine that it is on, see `ModelParameters`. If unset, the server chooses.
        """
        operation = self._operation()
        on_device = await arun(queries.on_device(operation, device))
        await arun(queries.unload(operation, self._kind, model_identifier, on_device))

    async def get_model_info(self, model_specifier: ModelReference, *, device: str | None = None) -> ModelInstanceInfo:
        """Return the info of a loaded instance, by identifier or by properties (`{"vision": True}`).

        Args:
            model_specifier: The identifier or the properties.
            device: The machine that it is on, see `ModelParameters`. If unset, the server chooses.
        """
        return await arun(queries.look_up(self._operation(), self._kind, model_specifier, device))

    async def list_loaded(self) -> list[HandleT]:
        """Return handles to all loaded instances."""
        return await self._list_loaded(self._operation())

    async def _list_loaded(self, operation: Operation) -> list[HandleT]:
        infos = await arun(queries.list_loaded(operation, self._kind))
        is_linked = any(info.device_identifier is not None for info in infos)
        return [self._loaded(info, names_device=is_linked) for info in infos]

    async def list_downloaded(self) -> list[DownloadedT]:
        """Return all models of this kind on the server's disk."""
        return [downloaded(self, info) for info in await arun(queries.list_downloaded(self._operation(), self._kind))]

    async def estimate_usage(
        self, model_key: str, *, config: LoadConfig | None = None, device: str | None = None
    ) -> ModelUsageEstimate:
        """Return how much memory a model would take. Not every server knows.

        Args:
            model_key: The model.
            config: How it would be loaded.
            device: The machine on which it would be loaded, see `ModelParameters`. If unset, the server chooses.
        """
        stack, operation = stack_of(load_settings(self._kind, config)), self._operation()
        on_device = await arun(queries.on_device(operation, device))
        return await arun(queries.estimate_usage(operation, self._kind, model_key, stack, on_device))


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


AnyAsyncDownloadedModel: TypeAlias = Union[
    AsyncDownloadedLlm, AsyncDownloadedEmbeddingModel, "lms.AsyncDownloadedDecisionModel"
]


class AsyncLlmNamespace(AsyncModelNamespace[AsyncLLM, AsyncDownloadedLlm]):
    """The language models: `client.llm`."""

    _kind: ClassVar[ModelKind] = "llm"
    _downloaded = AsyncDownloadedLlm

    @override
    def _handle_for(self, state: ModelState) -> AsyncLLM:
        return AsyncLLM(LanguageModel(self._context, state))


class AsyncEmbeddingNamespace(AsyncModelNamespace[AsyncEmbeddingModel, AsyncDownloadedEmbeddingModel]):
    """The embedding models: `client.embedding`."""

    _kind: ClassVar[ModelKind] = "embedding"
    _downloaded = AsyncDownloadedEmbeddingModel

    @override
    def _handle_for(self, state: ModelState) -> AsyncEmbeddingModel:
        return AsyncEmbeddingModel(Embedder(self._context, state))


def _decisions(context: ClientContext) -> "lms.AsyncDecisionNamespace":
    """Return the decision models: `client.decision`."""
    with door("decisions and rerankers"):
        from lmstudio_integrations.client.api.decisions.asynchronous import AsyncDecisionNamespace  # noqa: PLC0415 - a leaf
    return AsyncDecisionNamespace(context)


class AsyncSystemNamespace(BaseNamespace):
    """The server itself: `client.system`."""

    async def list_downloaded_models(self, namespace: ModelKind | None = None) -> list[AnyAsyncDownloadedModel]:
        """Return all models on the server's disk, or those of one kind."""
        return self._as_downloaded(await arun(queries.list_downloaded(self._operation(), checked_kind(namespace))))

    def _as_downloaded(self, infos: Iterable[ModelInfo]) -> list[AnyAsyncDownloadedModel]:
        namespaces: dict[str, Callable[[ClientContext], AsyncModelNamespace[Any, Any]]] = {
            "llm": AsyncLlmNamespace,
            "embedding": AsyncEmbeddingNamespace,
            "decision": _decisions,
        }
        models = list[AnyAsyncDownloadedModel]()
        for info in infos:
            with suppress(MissingLeafError):  # a kind that this copy does not have is left out like an unknown one
                models.append(downloaded(namespaces[info.type](self._context), info))
        return models

    async def get_version(self) -> ServerVersion:
        """Return the version of LM Studio."""
        return await arun(queries.version(self._operation()))


class AsyncFilesNamespace(BaseNamespace):
    """Images for the model, and documents to search: `client.files`."""

    async def prepare_image(self, src: FileInput, name: str | None = None) -> FileHandle:
        """Upload an image for use in a chat. Reading and encoding it blocks the caller's thread.

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

        Reading and encoding it blocks the caller's thread.
        """
        return await arun(uploads.prepare_file(self._operation(), src, name))

    async def parse_document(
        self, file: FileHandle, *, on_progress: Callable[[float], Any] | None = None, show_progress: bool = False
    ) -> "lms.ParsedDocument":
        """Return the text of an uploaded document. The callback takes values from 0.0 to 1.0; a bar shows them."""
        with door("documents"):
            from lmstudio_integrations.client.files.documents import parse_document  # noqa: PLC0415 - a leaf
        return await arun(parse_document(self._operation(), file, on_progress, show_progress=show_progress))

    async def retrieve(
        self, query: str, files: Sequence[FileHandle], **parameters: "Unpack[lms.RetrievalParameters]"
    ) -> "lms.RetrievalResult":
        """Return the passages of uploaded documents that are relevant to a query. See `RetrievalParameters`."""
        with door("documents"):
            from lmstudio_integrations.client.files.documents import retrieve  # noqa: PLC0415 - a leaf
        return await arun(retrieve(self._operation(), query, files, parameters))


class AsyncClient(BaseClient):
    """A client for coroutines, in any event loop; many may share it. See `BaseClient` for the arguments.

    Setup:
        Install the package: `pip install lmstudio-integrations`. Start LM Studio, or `lmsi serve`. The page
        `docs/guides/native-client.md` shows what such examples print. `async with`, or `await client.aclose()`, closes
        the client. Notebooks and `python -m asyncio` run an `await` that is in no function.

    Example:
        ```python
        import lmstudio_integrations as lms

        client = lms.AsyncClient()  # or lms.AsyncClient("localhost:1234", api_token="…")
        model = await client.llm.model("qwen/qwen3-4b", ttl=600)
        async for fragment in model.respond_stream("Why is the sky blue?"):
            print(fragment.content, end="", flush=True)
        ```
    """

    _mailbox_type: ClassVar[type[Mailbox]] = LoopMailbox
    default_timeouts: ClassVar[dict[str, float | None]] = dict(TIMEOUTS)
    """The timeouts of clients that set none; `set_sync_api_timeout` changes those of all sync clients."""

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            """Say where a method of models is, for programs that call it on the client."""
            kinds = {"llm": AsyncLLM, "embedding": AsyncEmbeddingModel}
            models = [f"client.{kind}.model(KEY).{name}" for kind, handle in kinds.items() if hasattr(handle, name)]
            hint = f"; a model has it: {models[0]}" if models and not name.startswith("_") else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    @property
    def llm(self) -> AsyncLlmNamespace:
        """The language models."""
        return AsyncLlmNamespace(self._context)

    @property
    def embedding(self) -> AsyncEmbeddingNamespace:
        """The embedding models."""
        return AsyncEmbeddingNamespace(self._context)

    @property
    def decision(self) -> "lms.AsyncDecisionNamespace":
        """The decision models."""
        return _decisions(self._context)

    @property
    def system(self) -> AsyncSystemNamespace:
        """The server itself."""
        return AsyncSystemNamespace(self._context)

    @property
    def files(self) -> AsyncFilesNamespace:
        """Images for the model, and documents to search."""
        return AsyncFilesNamespace(self._context)

    @property
    def repository(self) -> "lms.AsyncRepositoryNamespace":
        """Models to download."""
        with door("downloads"):
            from lmstudio_integrations.client.downloads.asynchronous import AsyncRepositoryNamespace  # noqa: PLC0415 - a leaf
        return AsyncRepositoryNamespace(self._context)

    @property
    def plugins(self) -> "lms.AsyncPluginsNamespace":
        """Plugins and MCP servers."""
        with door("plugins"):
            from lmstudio_integrations.client.plugins.asynchronous import AsyncPluginsNamespace  # noqa: PLC0415 - a leaf
        return AsyncPluginsNamespace(self._context)

    async def list_loaded_models(self, namespace: ModelKind | None = None) -> list[AnyAsyncModel]:
        """Return handles to all loaded instances, or to those of one kind."""
        kind, loaded, operation = checked_kind(namespace), list[AnyAsyncModel](), Operation(self._context)
        for each in [kind] if kind else await arun(queries.kinds(operation)):
            with nullcontext() if kind else suppress(MissingLeafError):
                loaded += await getattr(self, each)._list_loaded(operation)  # noqa: SLF001 - of this module
        return loaded

    async def list_downloaded_models(self, namespace: ModelKind | None = None) -> list[AnyAsyncDownloadedModel]:
        """Return all models on the server's disk, or those of one kind."""
        return await self.system.list_downloaded_models(namespace)

    async def plan(
        self, models: Sequence[str | tuple[str, LoadConfig]], *, device: str | None = None, evict: Evict = "own"
    ) -> "lms.MemoryPlan":
        """Return what fits into the memory of a machine, beside what is loaded there or in its place. Loads nothing.

        Args:
            models: The models, in the order in which they are to be loaded: `"MODEL[:CONTEXT][@SLOTS]"`, or pairs of a
                key and how to load it.
            device: The machine, see `ModelParameters`. If unset, it is the server's own.
            evict: What may have to go, see `ModelParameters`.

        Raises:
            LMStudioModelNotFoundError: If a model is not downloaded there, or the device is not connected.
        """
        evict = checked_choice(evict, Evict, "evict")
        return await arun(plan_memory(Operation(self._context), models, device, evict))

    async def hardware(self) -> "lms.HardwareSurvey":
        """Return the hardware of the server's own machine, as its engines see it."""
        with door("surveys of hardware"):
            from lmstudio_integrations.client.models.hardware import survey_hardware  # noqa: PLC0415 - a leaf
        return await arun(survey_hardware(Operation(self._context)))

    async def link_status(self) -> LinkStatus:
        """Return what the server knows of linked devices (LM Link)."""
        return await arun(queries.link_status(Operation(self._context)))

    async def prepare_image(self, src: FileInput, name: str | None = None) -> FileHandle:
        """Upload an image for use in a chat: `client.files.prepare_image`."""
        return await self.files.prepare_image(src, name)

    @classmethod
    async def is_valid_api_host(cls, api_host: str) -> bool:
        """Return whether an LM Studio responds at an address; false if it is not a valid address."""
        return await arun(is_reachable(api_host, cls._mailbox_type))

    @classmethod
    async def find_default_local_api_host(cls) -> str | None:
        """Return the address of the LM Studio on this machine, if there is one."""
        return await arun(locate(None, cls._mailbox_type))

    async def aclose(self) -> None:
        """Close everything that this client has open. It cannot be used after that; other clients are not affected."""
        self._context.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close(at_end_of_block=True)
        await self.aclose()
