"""The table of endpoints: by namespace and name, what a request carries and what comes back.

See docs/protocol.md#endpoint-table. Built on `requests.py` and `prediction.py`; both sessions look endpoints up here.
Packets of channels are dicts, except those of predictions, which `prediction.py` turns into events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import (
    LMStudioModelLoadError,
    LMStudioPluginError,
    LMStudioPredictionError,
    LMStudioServerError,
)
from lmstudio_integrations.protocol import prediction
from lmstudio_integrations.protocol.requests import (
    AbortToolCall,
    ApplyPromptTemplate,
    Artifact,
    BasePredictionConfig,
    CallTool,
    CompleteRawText,
    CreateDownloadPlan,
    DownloadModel,
    DownloadOptions,
    EmbedString,
    EstimateModelUsage,
    ExperimentFlag,
    GenerateWithGenerator,
    GetOrLoad,
    LoadModel,
    Lookup,
    ModelKey,
    Notify,
    ParseDocument,
    Predict,
    PreloadDraftModel,
    Retrieve,
    SearchModels,
    Specified,
    StaffPicks,
    StartHttpServer,
    StartToolUseSession,
    SurveyHardware,
    Tokenize,
    UnloadModel,
    UploadedFile,
    UploadFile,
)

Namespace = Literal[
    "llm", "embedding", "decision", "system", "files", "repository", "diagnostics", "runtime", "plugins"
]

Decode = Callable[[dict[str, Any]], Any]


def _as_is(packet: object) -> dict[str, Any]:
    # Every packet of a channel has a type (docs/protocol.md#channels); one without is damaged, not unknown.
    if not is_object(packet) or not isinstance(packet.get("type"), str):
        raise TypeError(f"a packet without a type: {packet!r}")
    return packet


@dataclass(frozen=True, slots=True)
class Rpc:
    """A call with one reply.

    Attributes:
        name: The endpoint.
        parameter: The request; `None` for a void parameter, whose key is absent (docs/protocol.md#serialization).
        timeout_name: The timeout that runs until the reply; `None` on calls that may take any time.
        is_optional: Whether the parameter may be absent.
    """

    name: str
    parameter: type[Any] | None = None
    timeout_name: str | None = "idle_timeout"
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """A call with a stream of packets as its reply.

    Attributes:
        name: The endpoint.
        parameter: The request that opens it.
        stop: The type of the packet that asks the server to stop, if there is one.
        packets: The other packets that a client may send: the schema of each by its type, or `None` for any form.
        error: The class of its errors, whatever their texts; by default, code and text decide.
        default_error: The class of its errors if neither code nor text is known.
        has_calls: Whether calls run on it, once its first packet has come; see `exchange.py`.
        decode: Converts a packet to what the caller receives; returns `None` for an unknown one.
        timeout_name: The timeout that runs until the first packet; `None` on channels that are open-ended.
    """

    name: str
    parameter: type[Any] | None = None
    stop: Literal["cancel", "stop", "cancelPlan", "discardSession"] | None = None
    decode: Decode = _as_is
    timeout_name: str | None = "idle_timeout"
    packets: Mapping[str, Any] = field(default_factory=dict[str, Any])
    error: type[LMStudioServerError] | None = None
    default_error: type[LMStudioServerError] = LMStudioServerError
    has_calls: bool = False

    @property
    def accepted(self) -> Mapping[str, Any]:
        """All packets that a client may send, as in `packets`."""
        return self.packets if self.stop is None else {self.stop: None, **self.packets}


Endpoint = Rpc | Channel

LAST_PACKETS = {"success", "loadSuccess", "alreadyLoaded", "result"}
"""Types of terminal packets: only `channelClose` follows, so nothing is left to stop (docs/protocol.md#channels)."""


def _loading(name: str, parameter: type[Any]) -> Channel:
    return Channel(name, parameter, "cancel", timeout_name="load_timeout", default_error=LMStudioModelLoadError)


def _predicting(name: str, parameter: type[Any]) -> Channel:
    """Return a channel whose packets become events of a prediction."""
    return Channel(name, parameter, "cancel", prediction.decode, "queue_timeout", default_error=LMStudioPredictionError)


_MODELS: tuple[Endpoint, ...] = (
    Rpc("unloadModel", UnloadModel),
    Rpc("listLoaded"),
    Rpc("getModelInfo", Lookup),
    Rpc("getLoadConfig", Specified),
    Rpc("getBasePredictionConfig", BasePredictionConfig),
    Rpc("getInstanceProcessingState", Lookup),
    Rpc("estimateModelUsage", EstimateModelUsage),
    _loading("loadModel", LoadModel),
    _loading("getOrLoad", GetOrLoad),
)

_TEXT_MODELS: tuple[Endpoint, ...] = (
    *_MODELS,
    # These wait in the queue of the instance, as predictions do (docs/protocol.md#parallel-requests).
    Rpc("tokenize", Tokenize, "queue_timeout"),
    Rpc("countTokens", Tokenize, "queue_timeout"),
)

_BY_NAMESPACE: dict[Namespace, tuple[Endpoint, ...]] = {
    "llm": (
        *_TEXT_MODELS,
        Rpc("applyPromptTemplate", ApplyPromptTemplate),
        Rpc("preloadDraftModel", PreloadDraftModel),
        _predicting("predict", Predict),
        _predicting("completeRawText", CompleteRawText),
    ),
    "embedding": (*_TEXT_MODELS, Rpc("embedString", EmbedString, "queue_timeout")),
    # Questions are asked over HTTP (docs/protocol.md#decisions).
    "decision": _MODELS,
    "system": (
        Rpc("listDownloadedModels"),
        Rpc("listDownloadedModelVariants", ModelKey),
        Rpc("version"),
        Rpc("info"),
        Rpc("notify", Notify),
        Rpc("setExperimentFlag", ExperimentFlag),
        Rpc("getExperimentFlags"),
        Rpc("startHttpServer", StartHttpServer),
        Rpc("stopHttpServer"),
        Rpc("requestShutdown"),
        # No packet ever comes; it stays open until the client disconnects (docs/protocol.md#system-endpoints).
        Channel("alive", timeout_name=None),
    ),
    "files": (
        Rpc("uploadFileBase64", UploadFile),
        Rpc("getDocumentParsingLibrary", UploadedFile),
        Channel("parseDocument", ParseDocument, "cancel"),
        # The packet is "stop" here and in streamLogs, "cancel" on all other channels (docs/protocol.md#retrieve).
        Channel("retrieve", Retrieve, "stop"),
    ),
    "repository": (
        Rpc("searchModels", SearchModels),
        Rpc("getModelDownloadOptions", DownloadOptions),
        Rpc("isAuthenticated"),
        Rpc("getAuthenticationStatus"),
        Rpc("getWritableArtifactOwners"),
        Rpc("getModelCatalog"),
        Rpc("fuzzyFindStaffPicks", StaffPicks),
        Rpc("lmLinkStatus"),
        Channel("downloadModel", DownloadModel, "cancel"),
        Channel(
            "createDownloadPlan",
            CreateDownloadPlan,
            "cancelPlan",
            packets=dict.fromkeys(("setSelectedDownloadOptionIndex", "commit", "cancelDownload")),
        ),
        # Its name before 2026 (docs/protocol.md#create-download-plan).
        Channel("createArtifactDownloadPlan", Artifact, "cancel", packets={"commit": None}),
    ),
    # Open-ended: a quiet log is no stall (docs/protocol.md#diagnostics-endpoints).
    "diagnostics": (Channel("streamLogs", None, "stop", timeout_name=None),),
    "runtime": (Rpc("listEngines"), Rpc("surveyHardware", SurveyHardware, is_optional=True)),
    "plugins": (
        # Starting a plugin may take as long as loading a model: it may have to download its program first.
        Channel(
            "startToolUseSession",
            StartToolUseSession,
            "discardSession",
            timeout_name="load_timeout",
            packets={"callTool": CallTool, "abortToolCall": AbortToolCall},
            error=LMStudioPluginError,
            has_calls=True,
        ),
        # Only the emulator has it: this client uses models (docs/protocol.md#generators).
        Channel("generateWithGenerator", GenerateWithGenerator, "cancel", error=LMStudioPluginError),
    ),
}

_NAMED_RPCS: dict[Namespace, str] = {
    "files": "getLocalFileAbsolutePath",
    "repository": """
        deauthenticate loginAsComputeDevice loginWithPreAuthenticatedKeys
        installPluginDependencies installLocalPlugin getLocalArtifactFiles
        lmLinkSetDisabled lmLinkUpdateDeviceName lmLinkSetPreferredDevice
    """,
    "runtime": "getEngineSelections selectEngine removeEngine searchRuntimeExtensions",
    "plugins": """
        reindexPlugins processingHandleUpdate processingHandleRequest processingPullHistory
        processingGetOrLoadTokenSource processingHasStatus processingNeedsNaming processingSuggestName
        processingSetSenderName setConfigSchematics setGlobalConfigSchematics pluginInitCompleted reportError
    """,
}

_NAMED_CHANNELS: dict[Namespace, str] = {
    "repository": "ensureAuthenticated downloadArtifact pushArtifact",
    "runtime": "downloadRuntimeExtension",
    "plugins": """
        registerDevelopmentPlugin setPromptPreprocessor setPredictionLoopHandler setToolsProvider setGenerator
    """,
}


ENDPOINTS: dict[Namespace, dict[str, Endpoint]] = {
    namespace: {endpoint.name: endpoint for endpoint in endpoints} for namespace, endpoints in _BY_NAMESPACE.items()
}
"""Every endpoint that has a schema in the protocol, by namespace and name."""

NAMED_ENDPOINTS: dict[Namespace, dict[str, Endpoint]] = {
    namespace: {
        name: kind(name, object)
        for kind, names in ((Rpc, _NAMED_RPCS), (Channel, _NAMED_CHANNELS))
        for name in names.get(namespace, "").split()
    }
    for namespace in ENDPOINTS
}
"""The other endpoints of the official interfaces. Only their names are known, so they accept any request and get an
error: silence would hang the caller (docs/protocol.md#lm-link)."""


def rpc(namespace: Namespace, name: str) -> Rpc:
    """Return the entry of an RPC."""
    endpoint = ENDPOINTS[namespace][name]
    assert isinstance(endpoint, Rpc), f"{namespace}.{name} is a channel"
    return endpoint


def channel(namespace: Namespace, name: str) -> Channel:
    """Return the entry of a channel."""
    endpoint = ENDPOINTS[namespace][name]
    assert isinstance(endpoint, Channel), f"{namespace}.{name} is an RPC"
    return endpoint
