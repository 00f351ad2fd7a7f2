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
    from lmstudio_integrations.client._act import ActResult as ActResult
    from lmstudio_integrations.client._official import AnyAsyncDownloadedModel as AnyAsyncDownloadedModel
    from lmstudio_integrations.client._official import AnyChatMessage as AnyChatMessage
    from lmstudio_integrations.client._official import AnyChatMessageDict as AnyChatMessageDict
    from lmstudio_integrations.client._official import AnyDownloadedModel as AnyDownloadedModel
    from lmstudio_integrations.client._official import AnyLoadConfig as AnyLoadConfig
    from lmstudio_integrations.client._official import AnyModelSpecifier as AnyModelSpecifier
    from lmstudio_integrations.client._official import AssistantResponse as AssistantResponse
    from lmstudio_integrations.client._official import AssistantResponseContent as AssistantResponseContent
    from lmstudio_integrations.client._official import BaseModel as BaseModel
    from lmstudio_integrations.client._official import ChatHistoryData as ChatHistoryData
    from lmstudio_integrations.client._official import ChatHistoryDataDict as ChatHistoryDataDict
    from lmstudio_integrations.client._official import DictObject as DictObject
    from lmstudio_integrations.client._official import DictSchema as DictSchema
    from lmstudio_integrations.client._official import DownloadFinalizedCallback as DownloadFinalizedCallback
    from lmstudio_integrations.client._official import DownloadProgressCallback as DownloadProgressCallback
    from lmstudio_integrations.client._official import FileHandleDict as FileHandleDict
    from lmstudio_integrations.client._official import FileHandleInput as FileHandleInput
    from lmstudio_integrations.client._official import FileType as FileType
    from lmstudio_integrations.client._official import LocalFileInput as LocalFileInput
    from lmstudio_integrations.client._official import ModelQuery as ModelQuery
    from lmstudio_integrations.client._official import ModelQueryDict as ModelQueryDict
    from lmstudio_integrations.client._official import ModelSchema as ModelSchema
    from lmstudio_integrations.client._official import ModelSpecifier as ModelSpecifier
    from lmstudio_integrations.client._official import ModelSpecifierDict as ModelSpecifierDict
    from lmstudio_integrations.client._official import PredictionFirstTokenCallback as PredictionFirstTokenCallback
    from lmstudio_integrations.client._official import PredictionFragmentCallback as PredictionFragmentCallback
    from lmstudio_integrations.client._official import PredictionMessageCallback as PredictionMessageCallback
    from lmstudio_integrations.client._official import PromptProcessingCallback as PromptProcessingCallback
    from lmstudio_integrations.client._official import ResponseSchema as ResponseSchema
    from lmstudio_integrations.client._official import SyncModelHandle as SyncModelHandle
    from lmstudio_integrations.client._official import SystemPrompt as SystemPrompt
    from lmstudio_integrations.client._official import SystemPromptContent as SystemPromptContent
    from lmstudio_integrations.client._official import TextData as TextData
    from lmstudio_integrations.client._official import TextDataDict as TextDataDict
    from lmstudio_integrations.client._official import ToolCallResultData as ToolCallResultData
    from lmstudio_integrations.client._official import ToolDefinition as ToolDefinition
    from lmstudio_integrations.client._official import ToolResultMessage as ToolResultMessage
    from lmstudio_integrations.client._official import UserMessageContent as UserMessageContent
    from lmstudio_integrations.client._official import UserMessageDict as UserMessageDict
    from lmstudio_integrations.client.asynchronous import AsyncClient as AsyncClient
    from lmstudio_integrations.client.asynchronous import AsyncDownloadedEmbeddingModel as AsyncDownloadedEmbeddingModel
    from lmstudio_integrations.client.asynchronous import AsyncDownloadedLlm as AsyncDownloadedLlm
    from lmstudio_integrations.client.asynchronous import AsyncEmbeddingModel as AsyncEmbeddingModel
    from lmstudio_integrations.client.asynchronous import AsyncLLM as AsyncLLM
    from lmstudio_integrations.client.asynchronous import AsyncPredictionStream as AsyncPredictionStream
    from lmstudio_integrations.client.convenience import configure_default_client as configure_default_client
    from lmstudio_integrations.client.convenience import embedding_model as embedding_model
    from lmstudio_integrations.client.convenience import get_default_client as get_default_client
    from lmstudio_integrations.client.convenience import get_sync_api_timeout as get_sync_api_timeout
    from lmstudio_integrations.client.convenience import list_downloaded_models as list_downloaded_models
    from lmstudio_integrations.client.convenience import list_loaded_models as list_loaded_models
    from lmstudio_integrations.client.convenience import llm as llm
    from lmstudio_integrations.client.convenience import prepare_image as prepare_image
    from lmstudio_integrations.client.convenience import set_sync_api_timeout as set_sync_api_timeout
    from lmstudio_integrations.client.sync import LLM as LLM
    from lmstudio_integrations.client.sync import Client as Client
    from lmstudio_integrations.client.sync import DownloadedEmbeddingModel as DownloadedEmbeddingModel
    from lmstudio_integrations.client.sync import DownloadedLlm as DownloadedLlm
    from lmstudio_integrations.client.sync import EmbeddingModel as EmbeddingModel
    from lmstudio_integrations.client.sync import PredictionStream as PredictionStream
    from lmstudio_integrations.errors import LMStudioAuthenticationError as LMStudioAuthenticationError
    from lmstudio_integrations.errors import LMStudioCancelledError as LMStudioCancelledError
    from lmstudio_integrations.errors import LMStudioChannelClosedError as LMStudioChannelClosedError
    from lmstudio_integrations.errors import LMStudioClientClosedError as LMStudioClientClosedError
    from lmstudio_integrations.errors import LMStudioClientError as LMStudioClientError
    from lmstudio_integrations.errors import LMStudioConfigMismatchError as LMStudioConfigMismatchError
    from lmstudio_integrations.errors import LMStudioConfigWarning as LMStudioConfigWarning
    from lmstudio_integrations.errors import LMStudioConnectionLostError as LMStudioConnectionLostError
    from lmstudio_integrations.errors import LMStudioContextOverflowError as LMStudioContextOverflowError
    from lmstudio_integrations.errors import LMStudioError as LMStudioError
    from lmstudio_integrations.errors import LMStudioEvictionWarning as LMStudioEvictionWarning
    from lmstudio_integrations.errors import LMStudioFileExpiredError as LMStudioFileExpiredError
    from lmstudio_integrations.errors import LMStudioImageDownloadError as LMStudioImageDownloadError
    from lmstudio_integrations.errors import LMStudioInsufficientResourcesError as LMStudioInsufficientResourcesError
    from lmstudio_integrations.errors import LMStudioModelCrashedError as LMStudioModelCrashedError
    from lmstudio_integrations.errors import LMStudioModelLoadError as LMStudioModelLoadError
    from lmstudio_integrations.errors import LMStudioModelNotFoundError as LMStudioModelNotFoundError
    from lmstudio_integrations.errors import LMStudioModelUnloadedError as LMStudioModelUnloadedError
    from lmstudio_integrations.errors import LMStudioOSError as LMStudioOSError
    from lmstudio_integrations.errors import LMStudioPredictionError as LMStudioPredictionError
    from lmstudio_integrations.errors import LMStudioPresetNotFoundError as LMStudioPresetNotFoundError
    from lmstudio_integrations.errors import LMStudioPromptTemplateError as LMStudioPromptTemplateError
    from lmstudio_integrations.errors import LMStudioProtocolError as LMStudioProtocolError
    from lmstudio_integrations.errors import LMStudioRuntimeError as LMStudioRuntimeError
    from lmstudio_integrations.errors import LMStudioServerError as LMStudioServerError
    from lmstudio_integrations.errors import LMStudioStructuredOutputError as LMStudioStructuredOutputError
    from lmstudio_integrations.errors import LMStudioTimeoutError as LMStudioTimeoutError
    from lmstudio_integrations.errors import LMStudioToolCallError as LMStudioToolCallError
    from lmstudio_integrations.errors import LMStudioUnknownMessageWarning as LMStudioUnknownMessageWarning
    from lmstudio_integrations.errors import LMStudioUnreachableError as LMStudioUnreachableError
    from lmstudio_integrations.errors import LMStudioUnsupportedError as LMStudioUnsupportedError
    from lmstudio_integrations.errors import LMStudioValueError as LMStudioValueError
    from lmstudio_integrations.errors import LMStudioWebsocketError as LMStudioWebsocketError
    from lmstudio_integrations.errors import LMStudioWrongModelKindError as LMStudioWrongModelKindError
    from lmstudio_integrations.langchain import ChatLMStudio as ChatLMStudio
    from lmstudio_integrations.langchain import LMStudioEmbeddings as LMStudioEmbeddings
    from lmstudio_integrations.langchain import LMStudioLLM as LMStudioLLM
    from lmstudio_integrations.types.chat import AssistantMessage as AssistantMessage
    from lmstudio_integrations.types.chat import Chat as Chat
    from lmstudio_integrations.types.chat import SystemMessage as SystemMessage
    from lmstudio_integrations.types.chat import ToolMessage as ToolMessage
    from lmstudio_integrations.types.chat import UserMessage as UserMessage
    from lmstudio_integrations.types.config import EmbeddingLoadModelConfig as EmbeddingLoadModelConfig
    from lmstudio_integrations.types.config import GpuSetting as GpuSetting
    from lmstudio_integrations.types.config import LlmLoadModelConfig as LlmLoadModelConfig
    from lmstudio_integrations.types.config import LlmPredictionConfig as LlmPredictionConfig
    from lmstudio_integrations.types.config_dicts import EmbeddingLoadModelConfigDict as EmbeddingLoadModelConfigDict
    from lmstudio_integrations.types.config_dicts import GpuSettingDict as GpuSettingDict
    from lmstudio_integrations.types.config_dicts import LlmLoadModelConfigDict as LlmLoadModelConfigDict
    from lmstudio_integrations.types.config_dicts import LlmPredictionConfigDict as LlmPredictionConfigDict
    from lmstudio_integrations.types.documents import ParsedDocument as ParsedDocument
    from lmstudio_integrations.types.documents import RetrievalResult as RetrievalResult
    from lmstudio_integrations.types.downloads import DownloadProgressUpdate as DownloadProgressUpdate
    from lmstudio_integrations.types.files import FileHandle as FileHandle
    from lmstudio_integrations.types.functions import ToolFunctionDef as ToolFunctionDef
    from lmstudio_integrations.types.functions import ToolFunctionDefDict as ToolFunctionDefDict
    from lmstudio_integrations.types.models import ContextUse as ContextUse
    from lmstudio_integrations.types.models import EmbeddingModelInfo as EmbeddingModelInfo
    from lmstudio_integrations.types.models import EmbeddingModelInstanceInfo as EmbeddingModelInstanceInfo
    from lmstudio_integrations.types.models import InstanceProcessingState as InstanceProcessingState
    from lmstudio_integrations.types.models import LlmInfo as LlmInfo
    from lmstudio_integrations.types.models import LlmInstanceInfo as LlmInstanceInfo
    from lmstudio_integrations.types.models import ModelInfo as ModelInfo
    from lmstudio_integrations.types.models import ModelInstanceInfo as ModelInstanceInfo
    from lmstudio_integrations.types.results import LlmPredictionFragment as LlmPredictionFragment
    from lmstudio_integrations.types.results import LlmPredictionStats as LlmPredictionStats
    from lmstudio_integrations.types.results import PredictionEnd as PredictionEnd
    from lmstudio_integrations.types.results import PredictionEvent as PredictionEvent
    from lmstudio_integrations.types.results import PredictionResult as PredictionResult
    from lmstudio_integrations.types.results import PredictionRoundResult as PredictionRoundResult
    from lmstudio_integrations.types.results import PromptProgress as PromptProgress
    from lmstudio_integrations.types.results import ToolCallArguments as ToolCallArguments
    from lmstudio_integrations.types.results import ToolCallEnd as ToolCallEnd
    from lmstudio_integrations.types.results import ToolCallFailed as ToolCallFailed
    from lmstudio_integrations.types.results import ToolCallName as ToolCallName
    from lmstudio_integrations.types.results import ToolCallStart as ToolCallStart
    from lmstudio_integrations.types.tools import ToolCallRequest as ToolCallRequest

_EXPORTS = {
    ".client._act": "ActResult",
    ".client._official": """
        AnyAsyncDownloadedModel AnyChatMessage AnyChatMessageDict AnyDownloadedModel AnyLoadConfig
        AnyModelSpecifier AssistantResponse AssistantResponseContent BaseModel ChatHistoryData
        ChatHistoryDataDict DictObject DictSchema DownloadFinalizedCallback DownloadProgressCallback
        FileHandleDict FileHandleInput FileType LocalFileInput ModelQuery ModelQueryDict ModelSchema
        ModelSpecifier ModelSpecifierDict PredictionFirstTokenCallback PredictionFragmentCallback
        PredictionMessageCallback PromptProcessingCallback ResponseSchema SyncModelHandle SystemPrompt
        SystemPromptContent TextData TextDataDict ToolCallResultData ToolDefinition ToolResultMessage
        UserMessageContent UserMessageDict
    """,
    ".client.asynchronous": """
        AsyncClient AsyncDownloadedEmbeddingModel AsyncDownloadedLlm AsyncEmbeddingModel AsyncLLM
        AsyncPredictionStream
    """,
    ".client.convenience": """
        configure_default_client embedding_model get_default_client get_sync_api_timeout
        list_downloaded_models list_loaded_models llm prepare_image set_sync_api_timeout
    """,
    ".client.sync": "Client DownloadedEmbeddingModel DownloadedLlm EmbeddingModel LLM PredictionStream",
    ".errors": """
        LMStudioAuthenticationError LMStudioCancelledError LMStudioChannelClosedError
        LMStudioClientClosedError LMStudioClientError LMStudioConfigMismatchError LMStudioConfigWarning
        LMStudioConnectionLostError LMStudioContextOverflowError LMStudioError LMStudioEvictionWarning
        LMStudioFileExpiredError LMStudioImageDownloadError LMStudioInsufficientResourcesError
        LMStudioModelCrashedError LMStudioModelLoadError LMStudioModelNotFoundError LMStudioModelUnloadedError
        LMStudioOSError LMStudioPredictionError LMStudioPresetNotFoundError LMStudioPromptTemplateError
        LMStudioProtocolError LMStudioRuntimeError LMStudioServerError LMStudioStructuredOutputError
        LMStudioTimeoutError LMStudioToolCallError LMStudioUnknownMessageWarning LMStudioUnreachableError
        LMStudioUnsupportedError LMStudioValueError LMStudioWebsocketError LMStudioWrongModelKindError
    """,
    ".langchain": "ChatLMStudio LMStudioEmbeddings LMStudioLLM",
    ".types.chat": "AssistantMessage Chat SystemMessage ToolMessage UserMessage",
    ".types.config": "EmbeddingLoadModelConfig GpuSetting LlmLoadModelConfig LlmPredictionConfig",
    ".types.config_dicts": """
        EmbeddingLoadModelConfigDict GpuSettingDict LlmLoadModelConfigDict LlmPredictionConfigDict
    """,
    ".types.documents": "ParsedDocument RetrievalResult",
    ".types.downloads": "DownloadProgressUpdate",
    ".types.files": "FileHandle",
    ".types.functions": "ToolFunctionDef ToolFunctionDefDict",
    ".types.models": """
        ContextUse EmbeddingModelInfo EmbeddingModelInstanceInfo InstanceProcessingState LlmInfo
        LlmInstanceInfo ModelInfo ModelInstanceInfo
    """,
    ".types.results": """
        LlmPredictionFragment LlmPredictionStats PredictionEnd PredictionEvent PredictionResult
        PredictionRoundResult PromptProgress ToolCallArguments ToolCallEnd ToolCallFailed ToolCallName
        ToolCallStart
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
