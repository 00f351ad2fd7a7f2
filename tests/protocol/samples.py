"""Requests and packets in wire form, as the description of the protocol has them; one of each endpoint and kind."""

from typing import Any

QUERY = {"type": "query", "query": {"identifier": "m1"}}
INSTANCE = {"type": "instanceReference", "instanceReference": "ref-a"}
FIELD = {"key": "llm.prediction.maxPredictedTokens", "value": {"checked": True, "value": 50}}
STACK = {"layers": [{"layerName": "apiOverride", "config": {"fields": [FIELD]}}]}
EMPTY_STACK = {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}
FILE = {"type": "file", "name": "cat.png", "identifier": "abc", "sizeBytes": 31358, "fileType": "image"}
TOOL_CALL = {"type": "function", "id": "abc", "name": "add", "arguments": {"a": 1, "b": 2}}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
HISTORY: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "You are terse."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, FILE]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me compute."},
                {"type": "toolCallRequest", "toolCallRequest": TOOL_CALL},
            ],
        },
        {
            "role": "tool",
            "content": [{"type": "toolCallResult", "content": "3", "toolCallId": "abc", "name": "add"}],
        },
    ]
}
HELLO = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}

PREDICT_HELLO = {"modelSpecifier": QUERY, "history": HELLO, "predictionConfigStack": EMPTY_STACK}
GET_M1 = {"identifier": "m1", "loadConfigStack": EMPTY_STACK}
CANCEL = {"type": "cancel"}

_PRESET = {"fuzzyPresetIdentifier": "my-preset", "ignoreServerSessionConfig": False}
_LOOKUPS = [{"specifier": QUERY, "throwIfNotFound": True}, {"specifier": INSTANCE, "throwIfNotFound": False}]

PLUGIN: dict[str, Any] = {
    "pluginIdentifier": "mcp/weather",
    "pluginConfigSpecifier": {"type": "direct", "config": {"fields": []}, "workingDirectoryPath": "/tmp"},
}
_PROCESS = {"type": "predictionProcess", "pci": "p", "token": "t"}

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "unloadModel": [{"identifier": "my-id"}, {"identifier": "my-id", "deviceIdentifier": None}],
    "getModelInfo": [*_LOOKUPS, {"specifier": {"type": "query", "query": {}}, "throwIfNotFound": True}],
    "getLoadConfig": [{"specifier": QUERY}],
    "getBasePredictionConfig": [{"specifier": QUERY}, {"specifier": INSTANCE, "ignoreServerSessionConfig": True}],
    "getInstanceProcessingState": _LOOKUPS,
    "estimateModelUsage": [{"modelKey": "m", "loadConfigStack": EMPTY_STACK, "deviceIdentifier": "d"}],
    "tokenize": [{"specifier": QUERY, "inputString": "hi"}],
    "countTokens": [{"specifier": INSTANCE, "inputString": ""}],
    "loadModel": [
        {"modelKey": "qwen2.5-7b-instruct", "loadConfigStack": EMPTY_STACK},
        {
            "modelKey": "qwen2.5-7b-instruct",
            "identifier": "my-id",
            "deviceIdentifier": None,
            "ttlMs": 60000,
            "loadConfigStack": EMPTY_STACK,
        },
    ],
    "getOrLoad": [
        {"identifier": "m1", "loadConfigStack": EMPTY_STACK},
        {"identifier": "m1", "deviceIdentifier": "d", "loadTtlMs": 3600000, "loadConfigStack": EMPTY_STACK},
    ],
    "applyPromptTemplate": [
        {"specifier": QUERY, "history": HISTORY, "predictionConfigStack": {"layers": []}, "opts": {}},
        {
            "specifier": QUERY,
            "history": HELLO,
            "predictionConfigStack": STACK,
            "opts": {"omitBosToken": True, "omitEosToken": False, "toolDefinitions": [TOOL]},
        },
    ],
    "preloadDraftModel": [{"specifier": QUERY, "draftModelKey": "small"}],
    "predict": [
        {"modelSpecifier": QUERY, "history": HELLO, "predictionConfigStack": EMPTY_STACK},
        {"modelSpecifier": INSTANCE, "history": HISTORY, "predictionConfigStack": STACK, **_PRESET},
    ],
    "completeRawText": [
        {"modelSpecifier": QUERY, "rawPrompt": "once upon", "predictionConfigStack": STACK},
        {"modelSpecifier": QUERY, "rawPrompt": "", "predictionConfigStack": EMPTY_STACK, **_PRESET},
    ],
    "embedString": [{"modelSpecifier": QUERY, "inputString": "hi"}],
    "listDownloadedModelVariants": [{"modelKey": "m"}],
    "notify": [{"title": "t"}, {"title": "t", "description": "d", "noAutoDismiss": True}],
    "setExperimentFlag": [{"code": "c", "value": False}],
    "startHttpServer": [{}, {"port": 1234, "cors": True, "networkInterface": "127.0.0.1"}],
    "uploadFileBase64": [{"name": "cat.png", "contentBase64": "iVBOR"}],
    "getLocalFileAbsolutePath": [{"fileName": "f"}],
    "getDocumentParsingLibrary": [{"fileIdentifier": "f"}],
    "parseDocument": [
        {"fileIdentifier": "f", "parseOpts": {}},
        {"fileIdentifier": "f", "parseOpts": {"parserId": {"library": "l", "version": "1"}}},
    ],
    "retrieve": [
        {"query": "q", "fileIdentifiers": ["f"], "config": {"fields": [{"key": "retrieval.limit", "value": 3}]}}
    ],
    "searchModels": [{"opts": {}}, {"opts": {"searchTerm": "s", "limit": 25, "compatibilityTypes": ["gguf"]}}],
    "getModelDownloadOptions": [
        {"modelSearchResultIdentifier": {"type": "catalog", "identifier": "owner/name"}},
        {"modelSearchResultIdentifier": {"type": "hf", "identifier": "owner/name"}},
    ],
    "downloadModel": [{"downloadIdentifier": "d"}],
    "createDownloadPlan": [
        {"target": {"type": "artifact", "owner": "qwen", "name": "qwen3-4b"}},
        {
            "target": {"type": "model", "source": {"type": "huggingface", "user": "Qwen", "repo": "Qwen3-4B-GGUF"}},
            "opts": {
                "resolutionPreference": [
                    {"type": "quantName", "quantName": "Q4_K_M"},
                    {"type": "fileName", "fileName": "a.gguf"},
                ],
                "compatibilityTypes": ["gguf"],
            },
        },
    ],
    "createArtifactDownloadPlan": [{"owner": "qwen", "name": "qwen2.5-7b-instruct"}],
    "fuzzyFindStaffPicks": [{}, {"searchTerm": "s", "limit": 3, "compatibilityTypes": ["gguf"]}],
    "surveyHardware": [{"type": "selected"}, {"type": "custom", "engines": [{"name": "llama_cpp", "version": "1"}]}],
    "startToolUseSession": [PLUGIN, {"pluginIdentifier": "mcp/weather", "pluginConfigSpecifier": _PROCESS}],
    "generateWithGenerator": [
        {**PLUGIN, "tools": [], "history": HELLO},
        {"pluginIdentifier": "a/b", "pluginConfigSpecifier": _PROCESS, "tools": [TOOL], "history": HISTORY},
    ],
}
"""What opens each endpoint that takes something: with the least that it needs, and with all that it knows."""

VOID = {
    "listLoaded",
    "listDownloadedModels",
    "version",
    "info",
    "getExperimentFlags",
    "stopHttpServer",
    "requestShutdown",
    "isAuthenticated",
    "getAuthenticationStatus",
    "getWritableArtifactOwners",
    "getModelCatalog",
    "lmLinkStatus",
    "listEngines",
    "alive",
    "streamLogs",
}
"""The endpoints that take nothing."""

SUCCESS: dict[str, Any] = {
    "type": "success",
    "stats": {"stopReason": "eosFound", "promptTokensCount": 9},
    "modelInfo": {"type": "llm"},
    "loadModelConfig": {"fields": []},
    "predictionConfig": {"fields": []},
}


def rpc_call(endpoint: str, parameter: Any = ..., call_id: Any = 1) -> dict[str, Any]:
    """Return the frame of a call; without a parameter, it has none."""
    frame = {"type": "rpcCall", "endpoint": endpoint, "callId": call_id}
    return frame if parameter is ... else {**frame, "parameter": parameter}


def channel_create(endpoint: str, parameter: Any = ..., channel_id: Any = 1) -> dict[str, Any]:
    """Return the frame that opens a channel."""
    frame = {"type": "channelCreate", "endpoint": endpoint, "channelId": channel_id}
    return frame if parameter is ... else {**frame, "creationParameter": parameter}


def channel_send(message: Any, channel_id: Any = 1) -> dict[str, Any]:
    """Return the frame of a packet, of either side."""
    return {"type": "channelSend", "channelId": channel_id, "message": message}


def fragment(content: str, **members: Any) -> dict[str, Any]:
    """Return the packet of a piece of text."""
    return {
        "type": "fragment",
        "fragment": {
            "content": content,
            "tokensCount": 1,
            "containsDrafted": False,
            "reasoningType": "none",
            "isStructural": False,
            **members,
        },
    }


def progress(value: float) -> dict[str, Any]:
    """Return the packet of a sign of progress in reading the prompt."""
    return {"type": "promptProcessingProgress", "progress": value}
