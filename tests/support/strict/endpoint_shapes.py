"""The shapes of what a client sends, by namespace and endpoint; and of what the server sends on channels of plugins."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.strict.settings import (
    EMBEDDING_LOAD,
    FRACTION,
    LLM_LOAD,
    NATURAL,
    PREDICTION,
    RETRIEVAL,
    TOOL,
    Config,
    stack,
)
from tests.support.strict.shapes import (
    BOOLEAN,
    FREE,
    JSON_OBJECT,
    NUMBER,
    TEXT,
    Array,
    Nullable,
    Object,
    Shape,
    Tagged,
    Text,
    integer,
    one_of,
)


@dataclass(frozen=True)
class Name:
    """An identifier or a path of a query (docs/protocol.md#model-specifiers)."""

    def check(self, value: object, path: str) -> Iterator[str]:
        yield from Text(1, 1024).check(value, path)
        if isinstance(value, str):
            if value == "__proto__":
                yield f"{path} must not be __proto__"
            if any(unicodedata.category(character).startswith("C") for character in value):
                yield f"{path} has control or unassigned characters: {value!r}"


MILLISECONDS = integer(1)
DEVICE: dict[str, Shape] = {"deviceIdentifier": Nullable(TEXT)}

QUERY = Object(
    {},
    {
        "domain": one_of("llm", "embedding", "drafter", "imageGen", "transcription", "tts"),
        "identifier": Name(),
        "path": Name(),
        "vision": BOOLEAN,
        **DEVICE,
    },
)
SPECIFIER = Tagged(
    "type",
    {"query": Object({"query": QUERY}), "instanceReference": Object({"instanceReference": Text(1)})},
)

TOOL_CALL = Object({"type": one_of("function"), "name": TEXT}, {"id": TEXT, "arguments": JSON_OBJECT})
PART = {
    "text": Object({"text": TEXT}),
    "file": Object(
        {
            "name": TEXT,
            "identifier": Text(1),
            "sizeBytes": integer(0),
            "fileType": one_of("image", "text/plain", "application/pdf", "application/word", "text/other", "unknown"),
        }
    ),
    "toolCallRequest": Object({"toolCallRequest": TOOL_CALL}),
    "toolCallResult": Object({"content": TEXT}, {"toolCallId": TEXT, "name": TEXT}),
}


def _content(*kinds: str) -> Object:
    return Object({"content": Array(Tagged("type", {kind: PART[kind] for kind in kinds}))})


HISTORY = Object(
    {
        "messages": Array(
            Tagged(
                "role",
                {
                    "system": _content("text", "file"),
                    "user": _content("text", "file"),
                    "assistant": _content("text", "file", "toolCallRequest"),
                    "tool": _content("toolCallResult"),
                },
            )
        )
    }
)

PRESET: dict[str, Shape] = {"fuzzyPresetIdentifier": TEXT, "ignoreServerSessionConfig": BOOLEAN}
PARSER = Object({"library": TEXT, "version": TEXT})
TOKENIZE = Object({"specifier": SPECIFIER, "inputString": TEXT})
SPECIFIED = Object({"specifier": SPECIFIER})
LOOKUP = Object({"specifier": SPECIFIER, "throwIfNotFound": BOOLEAN})

ARTIFACT = Object({"owner": Text(1), "name": Text(1)})
HUGGING_FACE = Tagged("type", {"huggingface": Object({"user": Text(1), "repo": Text(1)})})
PREFERENCE = Tagged("type", {"fileName": Object({"fileName": TEXT}), "quantName": Object({"quantName": TEXT})})

CANCEL = Tagged("type", {"cancel": Object()})
STOP = Tagged("type", {"stop": Object()})
LAST_OF_CLIENT = {"cancel", "stop", "cancelPlan", "cancelDownload", "discardSession"}
"""Types of packets after which a client sends nothing more on the channel."""

ERROR_DATA = Tagged(
    "code",
    {
        "generic.specificModelUnloaded": Object(),
        "generic.noModelMatchingQuery": Object(
            {"query": QUERY, "loadedModelsSample": Array(TEXT), "totalLoadedModels": NATURAL}
        ),
        "generic.pathNotFound": Object({"path": TEXT, "availablePathsSample": Array(TEXT), "totalModels": NATURAL}),
        "generic.identifierNotFound": Object(
            {"identifier": TEXT, "loadedModelsSample": Array(TEXT), "totalLoadedModels": NATURAL}
        ),
        "generic.domainMismatch": Object({"path": TEXT, "actualDomain": TEXT, "expectedDomain": TEXT}),
        "generic.engineDoesNotSupportFeature": Object(
            {
                "feature": TEXT,
                "engineName": TEXT,
                "engineType": TEXT,
                "installedVersion": TEXT,
                "supportedVersion": Nullable(TEXT),
            }
        ),
        "generic.missingRuntimeExtension": Object(),
        "generic.presetNotFound": Object(
            {
                "specifiedFuzzyPresetIdentifier": TEXT,
                "availablePresetsSample": Array(Object({"identifier": TEXT, "name": TEXT})),
                "totalAvailablePresets": NATURAL,
            }
        ),
    },
)
ERROR = Object(
    {},
    {
        **dict.fromkeys(("title", "rootTitle", "cause", "suggestion", "stack"), TEXT),
        "errorData": JSON_OBJECT,
        "displayData": ERROR_DATA,
    },
)
"""An error on the wire (docs/protocol.md#errors)."""

PLUGIN: dict[str, Shape] = {
    "pluginIdentifier": Text(1),
    "pluginConfigSpecifier": Tagged(
        "type",
        {
            "direct": Object({"config": Config({})}, {"workingDirectoryPath": Text(1)}),
            "predictionProcess": Object({"pci": TEXT, "token": TEXT}),
        },
    ),
}
CALL: dict[str, Shape] = {"callId": NATURAL}
TO_TOOL_SESSION = Tagged(
    "type",
    {
        "callTool": Object({**CALL, "name": Text(1), "arguments": JSON_OBJECT}),
        "abortToolCall": Object(CALL),
        "discardSession": Object(),
    },
)
FROM_TOOL_SESSION = Tagged(
    "type",
    {
        "sessionReady": Object({"toolDefinitions": Array(TOOL)}),
        "toolCallStatus": Object({**CALL, "statusText": TEXT}),
        "toolCallWarn": Object({**CALL, "warnText": TEXT}),
        "toolCallComplete": Object({**CALL, "result": FREE}),
        "toolCallError": Object({**CALL, "error": ERROR}),
    },
)
TOKEN: dict[str, Shape] = {"text": TEXT, "id": integer()}
FRAGMENT = Object(
    {
        "content": TEXT,
        "tokensCount": NATURAL,
        "containsDrafted": BOOLEAN,
        "reasoningType": one_of("none", "reasoning", "reasoningStartTag", "reasoningEndTag"),
        "isStructural": BOOLEAN,
    },
    {"tokens": Array(Object(TOKEN, {"logProb": NUMBER, "candidates": Array(Object({**TOKEN, "logProb": NUMBER}))}))},
)
PROGRESS_DETAILS = Object(
    dict.fromkeys(
        ("cachedTokenCount", "totalPromptTokenCount", "processedPromptTokenCount", "unprocessedPromptTokenCount"),
        NATURAL,
    )
)
FROM_GENERATOR = Tagged(
    "type",
    {
        "promptProcessingProgress": Object({"progress": FRACTION}, {"details": PROGRESS_DETAILS}),
        "fragment": Object({"fragment": FRAGMENT}),
        "toolCallGenerationStart": Object({}, {"toolCallId": TEXT}),
        "toolCallGenerationNameReceived": Object({"name": TEXT}),
        "toolCallGenerationArgumentFragmentGenerated": Object({"content": TEXT}),
        "toolCallGenerationEnd": Object({"toolCallRequest": TOOL_CALL}),
        "toolCallGenerationFailed": Object(),
        "success": Object(),
    },
)


@dataclass(frozen=True)
class Call:
    """An RPC: its parameter, `None` where it is void, and whether it may be absent."""

    parameter: Shape | None = None
    is_optional: bool = False


@dataclass(frozen=True)
class Stream:
    """A channel: its creation parameter, `None` where it is void, and what either side may send on it.

    What the server sends is checked only where it is given.
    """

    parameter: Shape | None = None
    message: Shape | None = None
    reply: Shape | None = None


def _models(load: dict[str, Shape]) -> dict[str, Call | Stream]:
    return {
        "unloadModel": Call(Object({"identifier": TEXT}, DEVICE)),
        "listLoaded": Call(),
        "getModelInfo": Call(LOOKUP),
        "getLoadConfig": Call(SPECIFIED),
        "getBasePredictionConfig": Call(Object({"specifier": SPECIFIER}, {"ignoreServerSessionConfig": BOOLEAN})),
        "getInstanceProcessingState": Call(LOOKUP),
        "estimateModelUsage": Call(Object({"modelKey": TEXT, "loadConfigStack": stack(load)}, DEVICE)),
        "tokenize": Call(TOKENIZE),
        "countTokens": Call(TOKENIZE),
        "loadModel": Stream(
            Object(
                {"modelKey": TEXT, "loadConfigStack": stack(load)},
                {"identifier": TEXT, "ttlMs": MILLISECONDS, **DEVICE},
            ),
            CANCEL,
        ),
        "getOrLoad": Stream(
            Object({"identifier": TEXT, "loadConfigStack": stack(load)}, {"loadTtlMs": MILLISECONDS, **DEVICE}),
            CANCEL,
        ),
    }


ENDPOINTS: dict[str, dict[str, Call | Stream]] = {
    "llm": {
        **_models(LLM_LOAD),
        "applyPromptTemplate": Call(
            Object(
                {
                    "specifier": SPECIFIER,
                    "history": HISTORY,
                    "predictionConfigStack": stack(PREDICTION, shortest=0),
                    "opts": Object(
                        {},
                        {"omitBosToken": BOOLEAN, "omitEosToken": BOOLEAN, "toolDefinitions": Array(TOOL)},
                    ),
                }
            )
        ),
        "preloadDraftModel": Call(Object({"specifier": SPECIFIER, "draftModelKey": TEXT})),
        "predict": Stream(
            Object(
                {"modelSpecifier": SPECIFIER, "history": HISTORY, "predictionConfigStack": stack(PREDICTION)}, PRESET
            ),
            CANCEL,
        ),
        "completeRawText": Stream(
            Object(
                {"modelSpecifier": SPECIFIER, "rawPrompt": TEXT, "predictionConfigStack": stack(PREDICTION)}, PRESET
            ),
            CANCEL,
        ),
    },
    "embedding": {
        **_models(EMBEDDING_LOAD),
        "embedString": Call(Object({"modelSpecifier": SPECIFIER, "inputString": TEXT})),
    },
    "system": {
        "listDownloadedModels": Call(),
        "listDownloadedModelVariants": Call(Object({"modelKey": TEXT})),
        "version": Call(),
        "info": Call(),
        "notify": Call(Object({"title": TEXT}, {"description": TEXT, "noAutoDismiss": BOOLEAN})),
        "setExperimentFlag": Call(Object({"code": TEXT, "value": BOOLEAN})),
        "getExperimentFlags": Call(),
        "startHttpServer": Call(
            Object({}, {"port": integer(1, 65535), "cors": BOOLEAN, "networkInterface": TEXT}),
        ),
        "stopHttpServer": Call(),
        "requestShutdown": Call(),
        "alive": Stream(),
    },
    "files": {
        "uploadFileBase64": Call(Object({"name": Text(1), "contentBase64": TEXT})),
        "getLocalFileAbsolutePath": Call(Object({"fileName": TEXT})),
        "getDocumentParsingLibrary": Call(Object({"fileIdentifier": TEXT})),
        "parseDocument": Stream(
            Object({"fileIdentifier": TEXT, "parseOpts": Object({}, {"parserId": PARSER})}),
            CANCEL,
        ),
        "retrieve": Stream(
            Object({"query": TEXT, "fileIdentifiers": Array(TEXT), "config": Config(RETRIEVAL)}),
            STOP,
        ),
    },
    "repository": {
        "searchModels": Call(
            Object(
                {
                    "opts": Object(
                        {},
                        {"searchTerm": TEXT, "limit": integer(1, 25), "compatibilityTypes": Array(TEXT)},
                    )
                }
            )
        ),
        "getModelDownloadOptions": Call(
            Object(
                {"modelSearchResultIdentifier": Object({"type": one_of("catalog", "hf"), "identifier": TEXT})},
            )
        ),
        "isAuthenticated": Call(),
        "getAuthenticationStatus": Call(),
        "getWritableArtifactOwners": Call(),
        "getModelCatalog": Call(),
        "fuzzyFindStaffPicks": Call(
            Object({}, {"searchTerm": TEXT, "limit": integer(1), "compatibilityTypes": Array(TEXT)})
        ),
        "lmLinkStatus": Call(),
        "downloadModel": Stream(Object({"downloadIdentifier": TEXT}), CANCEL),
        "createDownloadPlan": Stream(
            Object(
                {"target": Tagged("type", {"artifact": ARTIFACT, "model": Object({"source": HUGGING_FACE})})},
                {"opts": Object({}, {"resolutionPreference": Array(PREFERENCE), "compatibilityTypes": Array(TEXT)})},
            ),
            Tagged(
                "type",
                {
                    "cancelPlan": Object(),
                    "cancelDownload": Object(),
                    "commit": Object(),
                    "setSelectedDownloadOptionIndex": Object(
                        {
                            "nodeIndex": integer(0),
                            "selectedDownloadOptionIndex": Nullable(integer(0)),
                            "requestedPlanVersion": integer(1),
                        }
                    ),
                },
            ),
        ),
        "createArtifactDownloadPlan": Stream(ARTIFACT, Tagged("type", {"cancel": Object(), "commit": Object()})),
    },
    "diagnostics": {"streamLogs": Stream(None, STOP)},
    "runtime": {
        "listEngines": Call(),
        "surveyHardware": Call(
            Tagged(
                "type",
                {
                    "selected": Object(),
                    "all": Object(),
                    "custom": Object({"engines": Array(Object({"name": TEXT, "version": TEXT}))}),
                },
            ),
            is_optional=True,
        ),
    },
    "plugins": {
        "startToolUseSession": Stream(Object(PLUGIN), TO_TOOL_SESSION, FROM_TOOL_SESSION),
        "generateWithGenerator": Stream(
            Object({**PLUGIN, "tools": Array(TOOL), "history": HISTORY}), CANCEL, FROM_GENERATOR
        ),
    },
}
"""Every endpoint that a client of this kind may use (docs/protocol.md#endpoint-table)."""

CREDENTIAL = Text(1, 256)
AUTHENTICATION = Object(
    {"authVersion": one_of(1), "clientIdentifier": CREDENTIAL, "clientPasskey": CREDENTIAL},
)

ID = integer(0)
FRAMES = {
    "rpcCall": Object({"endpoint": TEXT, "callId": ID}, {"parameter": JSON_OBJECT}),
    "channelCreate": Object({"endpoint": TEXT, "channelId": ID}, {"creationParameter": JSON_OBJECT}),
    "channelSend": Object({"channelId": ID, "message": JSON_OBJECT}, {"ackId": ID}),
    "channelAck": Object({"channelId": ID, "ackId": ID}),
    "keepAlive": Object(),
    "communicationWarning": Object({"warning": TEXT}, {"kind": TEXT}),
}
"""What a client may send after authentication. No endpoint declares a signal, so there is nothing to subscribe to."""
