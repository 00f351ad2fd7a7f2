"""LM Studio as a first-class model provider, over its native WebSocket API.

`import lmstudio_integrations as lms` gives the native client; `ChatLMStudio`, `LMStudioLLM` and `LMStudioEmbeddings`
are the LangChain adapters. Each name is imported when it is first used, so importing the package is cheap and never
imports a framework.

A public name stands in two places: under `TYPE_CHECKING` for type checkers, in `_EXPORTS` for the runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
"""The release; the build reads it from here."""

if TYPE_CHECKING:
    # isort: off
    from lmstudio_integrations.client.predictions.tool_loop.act import ActResult as ActResult
    from lmstudio_integrations.client.api.official import (
        AnyAsyncDownloadedModel as AnyAsyncDownloadedModel,
        AnyChatMessage as AnyChatMessage,
        AnyChatMessageDict as AnyChatMessageDict,
        AnyDownloadedModel as AnyDownloadedModel,
        AnyLoadConfig as AnyLoadConfig,
        AnyModelSpecifier as AnyModelSpecifier,
        AssistantResponse as AssistantResponse,
        AssistantResponseContent as AssistantResponseContent,
        BaseModel as BaseModel,
        ChatHistoryData as ChatHistoryData,
        ChatHistoryDataDict as ChatHistoryDataDict,
        DictObject as DictObject,
        DictSchema as DictSchema,
        DownloadFinalizedCallback as DownloadFinalizedCallback,
        DownloadProgressCallback as DownloadProgressCallback,
        FileHandleDict as FileHandleDict,
        FileHandleInput as FileHandleInput,
        FileType as FileType,
        LocalFileInput as LocalFileInput,
        ModelQuery as ModelQuery,
        ModelQueryDict as ModelQueryDict,
        ModelSchema as ModelSchema,
        ModelSpecifier as ModelSpecifier,
        ModelSpecifierDict as ModelSpecifierDict,
        PredictionFirstTokenCallback as PredictionFirstTokenCallback,
        PredictionFragmentCallback as PredictionFragmentCallback,
        PredictionMessageCallback as PredictionMessageCallback,
        PromptProcessingCallback as PromptProcessingCallback,
        ResponseSchema as ResponseSchema,
        SyncModelHandle as SyncModelHandle,
        SystemPrompt as SystemPrompt,
        SystemPromptContent as SystemPromptContent,
        TextData as TextData,
        TextDataDict as TextDataDict,
        ToolCallResultData as ToolCallResultData,
        ToolDefinition as ToolDefinition,
        ToolResultMessage as ToolResultMessage,
        UserMessageContent as UserMessageContent,
        UserMessageDict as UserMessageDict,
    )
    from lmstudio_integrations.client.api.asynchronous import (
        AsyncClient as AsyncClient,
        AsyncDownloadedEmbeddingModel as AsyncDownloadedEmbeddingModel,
        AsyncDownloadedLlm as AsyncDownloadedLlm,
        AsyncEmbeddingModel as AsyncEmbeddingModel,
        AsyncLLM as AsyncLLM,
        AsyncPredictionStream as AsyncPredictionStream,
    )
    from lmstudio_integrations.client.api.convenience import (
        configure_default_client as configure_default_client,
        embedding_model as embedding_model,
        get_default_client as get_default_client,
        get_sync_api_timeout as get_sync_api_timeout,
        list_downloaded_models as list_downloaded_models,
        list_loaded_models as list_loaded_models,
        llm as llm,
        prepare_image as prepare_image,
        set_sync_api_timeout as set_sync_api_timeout,
    )
    from lmstudio_integrations.client.api.sync import (
        LLM as LLM,
        Client as Client,
        DownloadedEmbeddingModel as DownloadedEmbeddingModel,
        DownloadedLlm as DownloadedLlm,
        EmbeddingModel as EmbeddingModel,
        PredictionStream as PredictionStream,
    )
    from lmstudio_integrations.errors import (
        LMStudioAuthenticationError as LMStudioAuthenticationError,
        LMStudioCancelledError as LMStudioCancelledError,
        LMStudioChannelClosedError as LMStudioChannelClosedError,
        LMStudioClientClosedError as LMStudioClientClosedError,
        LMStudioClientError as LMStudioClientError,
        LMStudioConfigMismatchError as LMStudioConfigMismatchError,
        LMStudioConfigWarning as LMStudioConfigWarning,
        LMStudioConnectionLostError as LMStudioConnectionLostError,
        LMStudioContextOverflowError as LMStudioContextOverflowError,
        LMStudioError as LMStudioError,
        LMStudioEvictionWarning as LMStudioEvictionWarning,
        LMStudioFileExpiredError as LMStudioFileExpiredError,
        LMStudioImageDownloadError as LMStudioImageDownloadError,
        LMStudioInsufficientResourcesError as LMStudioInsufficientResourcesError,
        LMStudioModelCrashedError as LMStudioModelCrashedError,
        LMStudioModelLoadError as LMStudioModelLoadError,
        LMStudioModelNotFoundError as LMStudioModelNotFoundError,
        LMStudioModelUnloadedError as LMStudioModelUnloadedError,
        LMStudioOSError as LMStudioOSError,
        LMStudioPredictionError as LMStudioPredictionError,
        LMStudioPresetNotFoundError as LMStudioPresetNotFoundError,
        LMStudioPromptTemplateError as LMStudioPromptTemplateError,
        LMStudioProtocolError as LMStudioProtocolError,
        LMStudioRuntimeError as LMStudioRuntimeError,
        LMStudioServerError as LMStudioServerError,
        LMStudioStructuredOutputError as LMStudioStructuredOutputError,
        LMStudioTimeoutError as LMStudioTimeoutError,
        LMStudioToolCallError as LMStudioToolCallError,
        LMStudioTruncationWarning as LMStudioTruncationWarning,
        LMStudioUnknownMessageWarning as LMStudioUnknownMessageWarning,
        LMStudioUnreachableError as LMStudioUnreachableError,
        LMStudioUnsupportedError as LMStudioUnsupportedError,
        LMStudioValueError as LMStudioValueError,
        LMStudioWebsocketError as LMStudioWebsocketError,
        LMStudioWrongModelKindError as LMStudioWrongModelKindError,
    )
    from lmstudio_integrations.langchain import (
        ChatLMStudio as ChatLMStudio,
        LMStudioEmbeddings as LMStudioEmbeddings,
        LMStudioLLM as LMStudioLLM,
    )
    from lmstudio_integrations.types.chat import (
        AssistantMessage as AssistantMessage,
        Chat as Chat,
        SystemMessage as SystemMessage,
        ToolMessage as ToolMessage,
        UserMessage as UserMessage,
    )
    from lmstudio_integrations.types.config import (
        EmbeddingLoadModelConfig as EmbeddingLoadModelConfig,
        LlmLoadModelConfig as LlmLoadModelConfig,
        LlmPredictionConfig as LlmPredictionConfig,
    )
    from lmstudio_integrations.types.config_dicts import (
        EmbeddingLoadModelConfigDict as EmbeddingLoadModelConfigDict,
        GpuSettingDict as GpuSettingDict,
        LlmLoadModelConfigDict as LlmLoadModelConfigDict,
        LlmPredictionConfigDict as LlmPredictionConfigDict,
    )
    from lmstudio_integrations.types.documents import (
        ParsedDocument as ParsedDocument,
        RetrievalResult as RetrievalResult,
    )
    from lmstudio_integrations.types.downloads import DownloadProgressUpdate as DownloadProgressUpdate
    from lmstudio_integrations.types.files import FileHandle as FileHandle
    from lmstudio_integrations.types.functions import (
        ToolCallContext as ToolCallContext,
        ToolFunctionDef as ToolFunctionDef,
        ToolFunctionDefDict as ToolFunctionDefDict,
    )
    from lmstudio_integrations.types.gpu import GpuSetting as GpuSetting
    from lmstudio_integrations.types.hosts import HostStatus as HostStatus
    from lmstudio_integrations.types.models import (
        ChatTemplateInfo as ChatTemplateInfo,
        ContextUse as ContextUse,
        EmbeddingModelInfo as EmbeddingModelInfo,
        EmbeddingModelInstanceInfo as EmbeddingModelInstanceInfo,
        InstanceProcessingState as InstanceProcessingState,
        LlmInfo as LlmInfo,
        LlmInstanceInfo as LlmInstanceInfo,
        ModelInfo as ModelInfo,
        ModelInstanceInfo as ModelInstanceInfo,
    )
    from lmstudio_integrations.types.results import (
        LlmPredictionFragment as LlmPredictionFragment,
        LlmPredictionStats as LlmPredictionStats,
        PredictionEnd as PredictionEnd,
        PredictionEvent as PredictionEvent,
        PredictionResult as PredictionResult,
        PredictionRoundResult as PredictionRoundResult,
        PromptProgress as PromptProgress,
        ToolCallArguments as ToolCallArguments,
        ToolCallEnd as ToolCallEnd,
        ToolCallFailed as ToolCallFailed,
        ToolCallName as ToolCallName,
        ToolCallRecord as ToolCallRecord,
        ToolCallStart as ToolCallStart,
    )
    from lmstudio_integrations.types.tools import ToolCallRequest as ToolCallRequest
    # isort: on

_EXPORTS = {
    ".client.predictions.tool_loop.act": "ActResult",
    ".client.api.official": """
        AnyAsyncDownloadedModel AnyChatMessage AnyChatMessageDict AnyDownloadedModel AnyLoadConfig
        AnyModelSpecifier AssistantResponse AssistantResponseContent BaseModel ChatHistoryData
        ChatHistoryDataDict DictObject DictSchema DownloadFinalizedCallback DownloadProgressCallback
        FileHandleDict FileHandleInput FileType LocalFileInput ModelQuery ModelQueryDict ModelSchema
        ModelSpecifier ModelSpecifierDict PredictionFirstTokenCallback PredictionFragmentCallback
        PredictionMessageCallback PromptProcessingCallback ResponseSchema SyncModelHandle SystemPrompt
        SystemPromptContent TextData TextDataDict ToolCallResultData ToolDefinition ToolResultMessage
        UserMessageContent UserMessageDict
    """,
    ".client.api.asynchronous": """
        AsyncClient AsyncDownloadedEmbeddingModel AsyncDownloadedLlm AsyncEmbeddingModel AsyncLLM
        AsyncPredictionStream
    """,
    ".client.api.convenience": """
        configure_default_client embedding_model get_default_client get_sync_api_timeout
        list_downloaded_models list_loaded_models llm prepare_image set_sync_api_timeout
    """,
    ".client.api.sync": "Client DownloadedEmbeddingModel DownloadedLlm EmbeddingModel LLM PredictionStream",
    ".errors": """
        LMStudioAuthenticationError LMStudioCancelledError LMStudioChannelClosedError
        LMStudioClientClosedError LMStudioClientError LMStudioConfigMismatchError LMStudioConfigWarning
        LMStudioConnectionLostError LMStudioContextOverflowError LMStudioError LMStudioEvictionWarning
        LMStudioFileExpiredError LMStudioImageDownloadError LMStudioInsufficientResourcesError
        LMStudioModelCrashedError LMStudioModelLoadError LMStudioModelNotFoundError LMStudioModelUnloadedError
        LMStudioOSError LMStudioPredictionError LMStudioPresetNotFoundError LMStudioPromptTemplateError
        LMStudioProtocolError LMStudioRuntimeError LMStudioServerError LMStudioStructuredOutputError
        LMStudioTimeoutError LMStudioToolCallError LMStudioTruncationWarning LMStudioUnknownMessageWarning
        LMStudioUnreachableError LMStudioUnsupportedError LMStudioValueError LMStudioWebsocketError
        LMStudioWrongModelKindError
    """,
    ".langchain": "ChatLMStudio LMStudioEmbeddings LMStudioLLM",
    ".types.chat": "AssistantMessage Chat SystemMessage ToolMessage UserMessage",
    ".types.config": "EmbeddingLoadModelConfig LlmLoadModelConfig LlmPredictionConfig",
    ".types.config_dicts": """
        EmbeddingLoadModelConfigDict GpuSettingDict LlmLoadModelConfigDict LlmPredictionConfigDict
    """,
    ".types.documents": "ParsedDocument RetrievalResult",
    ".types.downloads": "DownloadProgressUpdate",
    ".types.files": "FileHandle",
    ".types.functions": "ToolCallContext ToolFunctionDef ToolFunctionDefDict",
    ".types.gpu": "GpuSetting",
    ".types.hosts": "HostStatus",
    ".types.models": """
        ChatTemplateInfo ContextUse EmbeddingModelInfo EmbeddingModelInstanceInfo InstanceProcessingState
        LlmInfo LlmInstanceInfo ModelInfo ModelInstanceInfo
    """,
    ".types.results": """
        LlmPredictionFragment LlmPredictionStats PredictionEnd PredictionEvent PredictionResult
        PredictionRoundResult PromptProgress ToolCallArguments ToolCallEnd ToolCallFailed ToolCallName
        ToolCallRecord ToolCallStart
    """,
    ".types.tools": "ToolCallRequest",
}
"""The public names of each module, for the runtime."""

_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}

if not TYPE_CHECKING:
    __all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
