"""The module-level functions of the official SDK, on one default client, and its names of types."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

from pydantic import BaseModel, SecretStr
from typing_extensions import Unpack

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.asynchronous import AnyAsyncDownloadedModel
from lmstudio_integrations.client.api.base import LoadConfig, ModelParameters
from lmstudio_integrations.client.api.sync import (
    LLM,
    AnyDownloadedModel,
    AnyModel,
    Client,
    EmbeddingModel,
    SyncModelHandle,
)
from lmstudio_integrations.client.files.uploads import FileInput
from lmstudio_integrations.client.support.arguments import seconds_of
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.errors import LMStudioClientError
from lmstudio_integrations.types.chat import (
    AssistantMessage,
    ChatHistory,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
)
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.files import FileHandle, FileType
from lmstudio_integrations.types.functions import ToolCallRequestPart, ToolCallResultPart, ToolInput
from lmstudio_integrations.types.models import InstanceSpecifier, ModelQuery, ModelReference, QuerySpecifier
from lmstudio_integrations.types.results import LlmPredictionFragment
from lmstudio_integrations.types.structured import ModelSchema, ResponseFormat


def set_sync_api_timeout(timeout: float | None) -> None:
    """Set how many seconds sync clients wait for the next packet; `None` waits forever, 0 not at all.

    Clients and calls that name their own `idle_timeout` keep it.

    Raises:
        LMStudioValueError: If it is negative or not a number.
    """
    Client.default_timeouts["idle_timeout"] = seconds_of(timeout, "idle_timeout", or_zero=True)


def get_sync_api_timeout() -> float | None:
    """Return how many seconds sync clients wait for the next packet."""
    return Client.default_timeouts["idle_timeout"]


class _Default:
    """The default client, once it is used, and how it is made."""

    client: Client | None = None
    api_host: str | None = None
    api_token: str | SecretStr | None = None

    def check_unused(self) -> None:
        """Reject a change of the settings once the client exists.

        Raises:
            LMStudioClientError: If it exists.
        """
        if self.client is not None:
            there = self.client.api_host or "the LM Studio of this machine"
            raise LMStudioClientError(
                f"the default client already uses {there}; name the host before its first use, or make a Client"
            )


_default = _Default()


def _take_place(default: _Default) -> _Default:
    """Let another default client take the place of the present one, which is returned."""
    global _default
    earlier, _default = _default, default
    return earlier


def configure_default_client(api_host: str | None = None, api_token: str | SecretStr | None = None) -> None:
    """Set the server and the token of the default client.

    Raises:
        LMStudioClientError: If the default client was already used.
        LMStudioValueError: If the host is no address.
    """
    Client(api_host, api_token).close()
    _default.check_unused()
    _default.api_host, _default.api_token = api_host, api_token


def get_default_client(api_host: str | None = None) -> Client:
    """Return the default client, and make it if necessary.

    If another host is given than to `configure_default_client`, it does not get the token that was given there.

    Raises:
        LMStudioClientError: If a host is given and the client already exists, even if it uses that host.
        LMStudioValueError: If the host is no address.
    """
    default = _default
    if api_host is not None:
        default.check_unused()
    if default.client is not None:
        return default.client
    host = api_host or default.api_host
    client = Client(host, default.api_token if _is_same(host, default.api_host) else None)
    # Another thread, or a signal handler, may have made one meanwhile.
    return cast("Client", vars(default).setdefault("client", client))


def _is_same(host: str | None, other: str | None) -> bool:
    """Whether two hosts are one server; `None` is the server that is used if none is named."""
    if not host or not other:
        return not host and not other
    return Address.parse(host).server == Address.parse(other).server


def reset_default_client() -> None:
    """Close the default client, so that the next use makes a new one. For tests."""
    client = _take_place(_Default()).client
    if client is not None:
        client.close()


@contextmanager
def own_default_client() -> Generator[None]:
    """Give the block a default client of its own, on the host that is the default then. For tests.

    It has no token but that of the environment, because one that was configured is for the earlier host. It is closed
    with the block; the earlier client and its settings then count again.
    """
    earlier = _take_place(_Default())
    try:
        yield
    finally:
        reset_default_client()
        _take_place(earlier)


def llm(model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> LLM:
    """Get a language model with the default client: `client.llm.model`."""
    return get_default_client().llm.model(model_key, **parameters)


def embedding_model(model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> EmbeddingModel:
    """Get an embedding model with the default client: `client.embedding.model`."""
    return get_default_client().embedding.model(model_key, **parameters)


def decision_model(model_key: str | None = None, /, **parameters: Unpack[ModelParameters]) -> "lms.DecisionModel":
    """Get a decision model with the default client: `client.decision.model`."""
    return get_default_client().decision.model(model_key, **parameters)


def list_loaded_models(namespace: ModelKind | None = None) -> list[AnyModel]:
    """Return handles to all loaded instances, or to those of one kind."""
    return get_default_client().list_loaded_models(namespace)


def list_downloaded_models(
    namespace: ModelKind | None = None,
) -> list[AnyDownloadedModel]:
    """Return all models on the server's disk, or those of one kind."""
    return get_default_client().list_downloaded_models(namespace)


def prepare_image(src: FileInput, name: str | None = None) -> FileHandle:
    """Upload an image for use in a chat: a path, bytes, an open file or a data URL."""
    return get_default_client().files.prepare_image(src, name)


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
FileHandleInput: TypeAlias = FileHandle | Mapping[str, Any]

AnyChatMessageDict: TypeAlias = dict[str, Any]
ChatHistoryDataDict: TypeAlias = dict[str, Any]
FileHandleDict: TypeAlias = dict[str, Any]
TextDataDict: TypeAlias = dict[str, Any]
UserMessageDict: TypeAlias = dict[str, Any]
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
DownloadProgressCallback: TypeAlias = Callable[["lms.DownloadProgressUpdate"], Any]
DownloadFinalizedCallback: TypeAlias = Callable[[], Any]
