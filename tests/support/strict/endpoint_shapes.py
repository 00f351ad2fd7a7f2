"""The shapes of what a client sends, by namespace and endpoint."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.strict.settings import EMBEDDING_LOAD, LLM_LOAD, PREDICTION, RETRIEVAL, TOOL, Config, stack
from tests.support.strict.shapes import (
    BOOLEAN,
    JSON_OBJECT,
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
    "toolCallRequest": Object(
        {
            "toolCallRequest": Object(
                {"type": one_of("function"), "name": TEXT},
                {"id": TEXT, "arguments": JSON_OBJECT},
            )
        }
    ),
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


@dataclass(frozen=True)
class Call:
    """An RPC: its parameter, `None` where it is void."""

    parameter: Shape | None = None


@dataclass(frozen=True)
class Stream:
    """A channel: its creation parameter, `None` where it is void, and what the client may send on it."""

    parameter: Shape | None = None
    message: Shape | None = None


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
    "runtime": {"listEngines": Call()},
    "plugins": {},
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
