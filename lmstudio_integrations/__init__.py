"""LM Studio as a first-class model provider, over its native WebSocket API.

`import lmstudio_integrations as lms` gives the native client; `ChatLMStudio`, `LMStudioLLM`, `LMStudioEmbeddings`,
`LMStudioReranker` and `LMStudioToolkit` are the LangChain adapters. Each name is imported when it is first used, so
importing the package is cheap and never imports a framework.

The public names stand in `_EXPORTS`. Type checkers read `__init__.pyi`, which `python -m tools.stub` writes from it.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    ".client.predictions.tool_loop.act": "ActParameters ActResult",
    ".client.predictions.tool_loop.repeated_calls": "GuardToolCallController",
    ".client.api.official": """
        AnyAsyncDownloadedModel AnyChatMessage AnyChatMessageDict AnyDownloadedModel AnyLoadConfig
        AnyModelSpecifier AssistantResponse AssistantResponseContent BaseModel ChatHistoryData
        ChatHistoryDataDict DictObject DictSchema DownloadFinalizedCallback DownloadProgressCallback
        FileHandleDict FileHandleInput FileType LocalFileInput ModelQuery ModelQueryDict ModelSchema
        ModelSpecifier ModelSpecifierDict PredictionFirstTokenCallback PredictionFragmentCallback
        PredictionMessageCallback PromptProcessingCallback ResponseSchema SyncModelHandle SystemPrompt
        SystemPromptContent TextData TextDataDict ToolCallResultData ToolDefinition ToolResultMessage
        UserMessageContent UserMessageDict configure_default_client decision_model
        embedding_model get_default_client get_sync_api_timeout list_downloaded_models list_loaded_models llm
        prepare_image set_sync_api_timeout
    """,
    ".client.api.asynchronous": """
        AsyncClient AsyncDownloadedEmbeddingModel AsyncDownloadedLlm AsyncEmbeddingModel AsyncLLM
    """,
    ".client.api.decisions.asynchronous": "AsyncDecisionModel AsyncDecisionNamespace AsyncDownloadedDecisionModel",
    ".client.api.decisions.sync": "DecisionModel DecisionNamespace DownloadedDecisionModel",
    ".client.api.responses": "AsyncPredictionStream PredictionStream",
    ".client.cancel_on_close": "AsyncCancellableStream CancellableStream cancel_on_close",
    ".client.downloads.asynchronous": "AsyncRepositoryNamespace",
    ".client.downloads.sync": "RepositoryNamespace",
    ".client.files.documents": "RetrievalParameters",
    ".client.plugins.asynchronous": "AsyncPluginTool AsyncPluginsNamespace AsyncToolUseSession",
    ".client.plugins.sync": "PluginTool PluginsNamespace ToolUseSession",
    ".client.predictions.decisions.deciding": "DecideParameters",
    ".client.predictions.decisions.reranking": "RerankParameters",
    ".client.api.sync": "Client DownloadedEmbeddingModel DownloadedLlm EmbeddingModel LLM",
    ".errors": """
        LMStudioAuthenticationError LMStudioCancelledError LMStudioChannelClosedError
        LMStudioClientClosedError LMStudioClientError LMStudioConfigMismatchError LMStudioConfigWarning
        LMStudioConnectionLostError LMStudioContextOverflowError LMStudioEngineLostError LMStudioError
        LMStudioEvictionWarning LMStudioFileExpiredError LMStudioImageDownloadError LMStudioInsufficientResourcesError
        LMStudioModelCrashedError LMStudioModelLoadError LMStudioModelNotFoundError LMStudioModelUnloadedError
        LMStudioOSError LMStudioPluginError LMStudioPluginToolError LMStudioPredictionError
        LMStudioPresetNotFoundError LMStudioPromptTemplateError LMStudioProtocolError
        LMStudioRuntimeError LMStudioServerError LMStudioStructuredOutputError LMStudioTimeoutError
        LMStudioToolCallError LMStudioToolConnectionLostError LMStudioToolSessionWarning LMStudioTruncationWarning
        LMStudioUnknownMessageWarning LMStudioUnreachableError LMStudioUnsupportedError LMStudioValueError
        LMStudioWebsocketError LMStudioWrongModelKindError
    """,
    ".langchain": "ChatLMStudio LMStudioClassifier LMStudioEmbeddings LMStudioLLM LMStudioReranker LMStudioToolkit",
    ".types.chat": "AssistantMessage Chat SystemMessage ToolMessage UserMessage",
    ".types.confidence": "FieldConfidence",
    ".types.config": "DecisionLoadModelConfig EmbeddingLoadModelConfig LlmLoadModelConfig LlmPredictionConfig",
    ".types.config_dicts": """
        EmbeddingLoadModelConfigDict GpuSettingDict LlmLoadModelConfigDict LlmPredictionConfigDict
    """,
    ".types.downloads": "DownloadProgressUpdate",
    ".types.documents": "ParsedDocument RetrievalResult",
    ".types.files": "FileHandle",
    ".types.functions": "ToolCallRequest ToolCallContext ToolFunctionDef ToolFunctionDefDict",
    ".types.gpu": "GpuSetting",
    ".types.hardware": "HardwareSurvey",
    ".types.hosts": "HostStatus",
    ".types.machines": "LinkStatus LinkedDevice",
    ".types.memory_plans": "Eviction LoadedModel MemoryPlan PlannedModel",
    ".types.models": """
        ChatTemplateInfo ContextUse DecisionModelInfo DecisionModelInstanceInfo EmbeddingModelInfo
        EmbeddingModelInstanceInfo InstanceProcessingState LlmInfo LlmInstanceInfo ModelInfo ModelInstanceInfo
    """,
    ".types.plugins": "ToolContent ToolImage ToolReport",
    ".types.reasoning": "ReasoningPart Thought",
    ".types.reasoning_replay": "ReasoningReplay",
    ".types.decisions": """
        Calibration Choice ChoiceAnswer Decision Noul NoulAnswer NoulCriteria Question Score ScoreAnswer calibrate
    """,
    ".types.reranking": "RerankResult RerankTemplate",
    ".types.results": """
        LlmPredictionFragment LlmPredictionStats PredictionEnd PredictionEvent PredictionResult
        PredictionRoundResult PromptProgress ToolCallArguments ToolCallEnd ToolCallFailed ToolCallName
        ToolCallRecord ToolCallStart
    """,
}
"""The public names of each module."""

_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = list(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll] - others read the stub

_MODULE_OF["__version__"] = "._support.environment"


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with import_module("._support.leaves", __name__).door(f"`{name}`"):
        value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
