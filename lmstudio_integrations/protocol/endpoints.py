"""The table of endpoints: per namespace and name, what a request carries (protocol §4).

Requests are pydantic models, so that a client cannot send a wrong field and a server can refuse one.
Packets of channels are dicts, except those of predictions, which `prediction.py` turns into events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.protocol import prediction
from lmstudio_integrations.protocol.kv_config import KvConfig, KvConfigStack
from lmstudio_integrations.types._base import WireModel
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.models import ModelSpecifier
from lmstudio_integrations.types.tools import Tool

Namespace = Literal["llm", "embedding", "system", "files", "repository", "diagnostics"]

Milliseconds = Annotated[int, Field(ge=1)]


class LoadModel(WireModel):
    """Load a new instance. An absent `identifier` lets the server choose, an absent TTL means none."""

    model_key: str
    identifier: str | None = None
    device_identifier: str | None = None
    ttl_ms: Milliseconds | None = None
    load_config_stack: KvConfigStack


class GetOrLoad(WireModel):
    """Get a loaded instance by identifier or key, or load the key."""

    identifier: str
    device_identifier: str | None = None
    load_ttl_ms: Milliseconds | None = None
    load_config_stack: KvConfigStack


class UnloadModel(WireModel):
    """Unload an instance."""

    identifier: str
    device_identifier: str | None = None


class Specified(WireModel):
    """Anything that only says which model."""

    specifier: ModelSpecifier


class Lookup(Specified):
    """Look for a loaded model; whether it is an error when there is none."""

    throw_if_not_found: bool


class BasePredictionConfig(Specified):
    """Ask for the prediction defaults of a model."""

    ignore_server_session_config: bool | None = None


class EstimateModelUsage(WireModel):
    """Ask how much memory a model would take."""

    model_key: str
    device_identifier: str | None = None
    load_config_stack: KvConfigStack


class Predict(WireModel):
    """Generate the next message of a conversation."""

    model_specifier: ModelSpecifier
    history: ChatHistory
    prediction_config_stack: KvConfigStack
    fuzzy_preset_identifier: str | None = None
    ignore_server_session_config: bool | None = None


class CompleteRawText(WireModel):
    """Continue a text, without a chat template."""

    model_specifier: ModelSpecifier
    raw_prompt: str
    prediction_config_stack: KvConfigStack
    fuzzy_preset_identifier: str | None = None
    ignore_server_session_config: bool | None = None


class TemplateOptions(WireModel):
    """Details of rendering a conversation."""

    omit_bos_token: bool | None = None
    omit_eos_token: bool | None = None
    tool_definitions: list[Tool] | None = None


class ApplyPromptTemplate(Specified):
    """Render a conversation as the model would read it."""

    history: ChatHistory
    prediction_config_stack: KvConfigStack
    opts: TemplateOptions


class Tokenize(Specified):
    """Turn a text into tokens, or count them."""

    input_string: str


class PreloadDraftModel(Specified):
    """Load a draft model ahead of its use."""

    draft_model_key: str


class EmbedString(WireModel):
    """Turn a text into a vector."""

    model_specifier: ModelSpecifier
    input_string: str


class ModelKey(WireModel):
    """Anything that only names a model key."""

    model_key: str


class Notify(WireModel):
    """Show a notification in the app."""

    title: str
    description: str | None = None
    no_auto_dismiss: bool | None = None


class ExperimentFlag(WireModel):
    """Switch an experiment on or off."""

    code: str
    value: bool


class StartHttpServer(WireModel):
    """Start the HTTP server of the app."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    cors: bool | None = None
    network_interface: str | None = None


class UploadFile(WireModel):
    """Store a temporary file for this client."""

    name: str
    content_base64: Annotated[str, Field(alias="contentBase64")]


class LocalFile(WireModel):
    """Name a local file."""

    file_name: str


class UploadedFile(WireModel):
    """Name an uploaded file."""

    file_identifier: str


class Parser(WireModel):
    """A document parser, and its version."""

    library: str
    version: str


class ParseOptions(WireModel):
    """Details of parsing a document."""

    parser_id: Parser | None = None


class ParseDocument(UploadedFile):
    """Turn an uploaded document into text."""

    parse_opts: ParseOptions


class Retrieve(WireModel):
    """Search uploaded documents for what bears on a query."""

    query: str
    file_identifiers: list[str]
    config: KvConfig


class SearchOptions(WireModel):
    """What to look for; without a term the server recommends."""

    search_term: str | None = None
    limit: Annotated[int, Field(ge=1, le=25)] | None = None
    compatibility_types: list[str] | None = None


class SearchModels(WireModel):
    """Search models to download."""

    opts: SearchOptions


class SearchResultIdentifier(WireModel):
    """A model that a search found."""

    type: Literal["catalog", "hf"]
    identifier: str


class DownloadOptions(WireModel):
    """Ask in which forms a model can be downloaded."""

    model_search_result_identifier: SearchResultIdentifier


class DownloadModel(WireModel):
    """Download a model."""

    download_identifier: str


Decode = Callable[[dict[str, Any]], Any]


def _as_is(packet: object) -> dict[str, Any]:
    if not is_object(packet) or not isinstance(packet.get("type"), str):
        raise TypeError(f"a packet without a type: {packet!r}")
    return packet


@dataclass(frozen=True, slots=True)
class Rpc:
    """A call with one answer."""

    name: str
    parameter: type[WireModel] | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """A call with a stream of packets as its answer.

    Attributes:
        name: The endpoint.
        parameter: What opens it.
        stop: The packet by which the client asks the server to stop, if there is one.
        decode: A packet to what the caller gets; `None` for an unknown one.
        clock: The clock that runs while nothing has come yet; `None` where waiting in a queue is no stall.
    """

    name: str
    parameter: type[WireModel] | None = None
    stop: Literal["cancel", "stop"] | None = None
    decode: Decode = _as_is
    clock: str | None = "idle_timeout"


Endpoint = Rpc | Channel

LAST_PACKETS = {"success", "loadSuccess", "alreadyLoaded", "result"}
"""Types of the packets after which only the end of the channel follows."""

_MODELS: tuple[Endpoint, ...] = (
    Rpc("unloadModel", UnloadModel),
    Rpc("listLoaded"),
    Rpc("getModelInfo", Lookup),
    Rpc("getLoadConfig", Specified),
    Rpc("getBasePredictionConfig", BasePredictionConfig),
    Rpc("getInstanceProcessingState", Lookup),
    Rpc("estimateModelUsage", EstimateModelUsage),
    Rpc("tokenize", Tokenize),
    Rpc("countTokens", Tokenize),
    Channel("loadModel", LoadModel, "cancel", clock="load_timeout"),
    Channel("getOrLoad", GetOrLoad, "cancel", clock="load_timeout"),
)

_BY_NAMESPACE: dict[Namespace, tuple[Endpoint, ...]] = {
    "llm": (
        *_MODELS,
        Rpc("applyPromptTemplate", ApplyPromptTemplate),
        Rpc("preloadDraftModel", PreloadDraftModel),
        Channel("predict", Predict, "cancel", prediction.decode, clock=None),
        Channel("completeRawText", CompleteRawText, "cancel", prediction.decode, clock=None),
    ),
    "embedding": (*_MODELS, Rpc("embedString", EmbedString)),
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
        Channel("alive", clock=None),
    ),
    "files": (
        Rpc("uploadFileBase64", UploadFile),
        Rpc("getLocalFileAbsolutePath", LocalFile),
        Rpc("getDocumentParsingLibrary", UploadedFile),
        Channel("parseDocument", ParseDocument, "cancel"),
        Channel("retrieve", Retrieve, "stop"),
    ),
    "repository": (
        Rpc("searchModels", SearchModels),
        Rpc("getModelDownloadOptions", DownloadOptions),
        Channel("downloadModel", DownloadModel, "cancel"),
    ),
    "diagnostics": (Channel("streamLogs", None, "stop", clock=None),),
}

ENDPOINTS: dict[Namespace, dict[str, Endpoint]] = {
    namespace: {endpoint.name: endpoint for endpoint in endpoints} for namespace, endpoints in _BY_NAMESPACE.items()
}
"""Every endpoint that has a schema in the protocol, by namespace and name."""


def rpc(namespace: Namespace, name: str) -> Rpc:
    """Return the entry of a call."""
    endpoint = ENDPOINTS[namespace][name]
    assert isinstance(endpoint, Rpc), f"{namespace}.{name} is a channel"
    return endpoint


def channel(namespace: Namespace, name: str) -> Channel:
    """Return the entry of a channel."""
    endpoint = ENDPOINTS[namespace][name]
    assert isinstance(endpoint, Channel), f"{namespace}.{name} is an rpc"
    return endpoint
