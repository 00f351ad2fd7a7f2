"""The official SDK's names of types, so that its users keep their annotations and imports."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from pydantic import BaseModel

from lmstudio_integrations.client.api.asynchronous import AnyAsyncDownloadedModel
from lmstudio_integrations.client.api.base import LoadConfig
from lmstudio_integrations.client.api.sync import AnyDownloadedModel, SyncModelHandle
from lmstudio_integrations.client.files.uploads import FileInput
from lmstudio_integrations.client.models.repository import OnDownload
from lmstudio_integrations.types.chat import (
    AssistantMessage,
    ChatHistory,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
)
from lmstudio_integrations.types.files import FileHandle, FileType
from lmstudio_integrations.types.functions import ToolInput
from lmstudio_integrations.types.models import InstanceSpecifier, ModelQuery, ModelReference, QuerySpecifier
from lmstudio_integrations.types.results import LlmPredictionFragment
from lmstudio_integrations.types.structured import ModelSchema, ResponseFormat
from lmstudio_integrations.types.tools import ToolCallRequestPart, ToolCallResultPart

__all__ = [
    "AnyAsyncDownloadedModel",
    "AnyChatMessage",
    "AnyChatMessageDict",
    "AnyDownloadedModel",
    "AnyLoadConfig",
    "AnyModelSpecifier",
    "AssistantResponse",
    "AssistantResponseContent",
    "BaseModel",
    "ChatHistoryData",
    "ChatHistoryDataDict",
    "DictObject",
    "DictSchema",
    "DownloadFinalizedCallback",
    "DownloadProgressCallback",
    "FileHandleDict",
    "FileHandleInput",
    "FileType",
    "LocalFileInput",
    "ModelQuery",
    "ModelQueryDict",
    "ModelSchema",
    "ModelSpecifier",
    "ModelSpecifierDict",
    "PredictionFirstTokenCallback",
    "PredictionFragmentCallback",
    "PredictionMessageCallback",
    "PromptProcessingCallback",
    "ResponseSchema",
    "SyncModelHandle",
    "SystemPrompt",
    "SystemPromptContent",
    "TextData",
    "TextDataDict",
    "ToolCallResultData",
    "ToolDefinition",
    "ToolResultMessage",
    "UserMessageContent",
    "UserMessageDict",
]

AnyLoadConfig: TypeAlias = LoadConfig

AnyChatMessage: TypeAlias = Message
AssistantResponse = AssistantMessage
SystemPrompt = SystemMessage
ToolResultMessage = ToolMessage
ChatHistoryData = ChatHistory
TextData = TextPart
ToolCallResultData = ToolCallResultPart
AssistantResponseContent: TypeAlias = TextPart | FileHandle | ToolCallRequestPart
SystemPromptContent: TypeAlias = TextPart | FileHandle
UserMessageContent: TypeAlias = TextPart | FileHandle

ModelSpecifier: TypeAlias = QuerySpecifier | InstanceSpecifier
AnyModelSpecifier: TypeAlias = ModelReference
ModelSpecifierDict: TypeAlias = Mapping[str, Any]
ModelQueryDict: TypeAlias = Mapping[str, Any]

DictObject: TypeAlias = Mapping[str, Any]
DictSchema: TypeAlias = Mapping[str, Any]
ResponseSchema: TypeAlias = ResponseFormat
ToolDefinition: TypeAlias = ToolInput
LocalFileInput: TypeAlias = FileInput

PredictionFirstTokenCallback: TypeAlias = Callable[[], Any]
PredictionFragmentCallback: TypeAlias = Callable[[LlmPredictionFragment], Any]
PredictionMessageCallback: TypeAlias = Callable[[AssistantMessage], Any]
PromptProcessingCallback: TypeAlias = Callable[[float], Any]
DownloadProgressCallback: TypeAlias = OnDownload
DownloadFinalizedCallback: TypeAlias = Callable[[], Any]


class TextDataDict(TypedDict):
    """`TextData` as a dict."""

    type: Literal["text"]
    text: str


class FileHandleDict(TypedDict):
    """`FileHandle` as a dict."""

    type: Literal["file"]
    name: str
    identifier: str
    sizeBytes: int
    fileType: FileType


FileHandleInput: TypeAlias = FileHandle | FileHandleDict


class UserMessageDict(TypedDict):
    """`UserMessage` as a dict."""

    role: Literal["user"]
    content: Sequence[TextDataDict | FileHandleDict]


AnyChatMessageDict: TypeAlias = UserMessageDict | Mapping[str, Any]


class ChatHistoryDataDict(TypedDict):
    """`ChatHistoryData` as a dict."""

    messages: Sequence[AnyChatMessageDict]
