"""What a request carries, endpoint by endpoint, in wire form (docs/protocol.md#endpoints).

Typed dicts: the client writes them as they are, and type checkers ensure their form; the emulator has pydantic check
what it receives. Used by `endpoints.py`.
"""

import re
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, Strict
from typing_extensions import TypedDict

from lmstudio_integrations._support.typeguards import SAFE_INTEGER
from lmstudio_integrations.protocol.kv_config import KvConfig, KvConfigStack
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.functions import Tool
from lmstudio_integrations.types.models import ModelSpecifier
from lmstudio_integrations.types.reasoning import ReasoningPart

_OWNER = "[a-z0-9]+(?:-[a-z0-9]+)*"
_NAME = "[a-z0-9]+(?:[-.][a-z0-9]+)*"
ARTIFACT = f"(?P<owner>{_OWNER})/(?P<name>{_NAME})"
"""A name on the hub (docs/protocol.md#create-download-plan)."""


def kebab_case(identifier: str) -> str | None:
    """Return the nearest name on the hub to an artifact or a plugin; `None` if it has one, or there is none."""
    spelled = "/".join(re.sub("[^a-z0-9.]+", "-", part).strip("-.") for part in identifier.lower().split("/"))
    return spelled if spelled != identifier and re.fullmatch(ARTIFACT, spelled) else None


def _read_as(kind: Any) -> GetPydanticSchema:
    return GetPydanticSchema(lambda _source, handler: handler(kind))


def _without_reasoning(history: ChatHistory) -> ChatHistory:
    """Reject reasoning, which is no part of messages on the wire."""
    if any(isinstance(part, ReasoningPart) for message in history.messages for part in message.content):
        raise ValueError("a message has a part of the type 'reasoning'")
    return history


# The client writes JSON here as it is; the emulator's validation turns it into the named type.
Specifier = Annotated[Any, _read_as(ModelSpecifier)]
History = Annotated[Any, _read_as(Annotated[ChatHistory, AfterValidator(_without_reasoning)])]
Stack = Annotated[Any, _read_as(KvConfigStack)]
Fields = Annotated[Any, _read_as(KvConfig)]
Tools = Annotated[Any, _read_as(list[Tool])]


# The reference server is as strict: a number is no string, but JSON's 1.0 is 1 (docs/protocol.md#invalid-input).
Flag = Annotated[bool, Strict()]
Whole = Annotated[
    int,
    Strict(),
    BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value),
]
Number = Annotated[int, Strict()] | Annotated[float, Strict(), Field(allow_inf_nan=False)]
# The server requires at least 1, and a number that is exact in JavaScript (docs/protocol.md#ttl).
Milliseconds = Annotated[Whole, Field(ge=1, lt=SAFE_INTEGER)]


class OnDevice(TypedDict):
    """The device of a model. Null means this machine only; without it the server chooses."""

    deviceIdentifier: NotRequired[str | None]


class LoadModel(OnDevice):
    """Load a new instance. Without `identifier` the server chooses one; without a TTL the instance has none."""

    modelKey: str
    identifier: NotRequired[str]
    ttlMs: NotRequired[Milliseconds]
    loadConfigStack: Stack


class GetOrLoad(OnDevice):
    """Get a loaded instance by identifier or key, or load the key."""

    identifier: str
    # Ignored, like the config, if the model is loaded already (docs/protocol.md#get-or-load).
    loadTtlMs: NotRequired[Milliseconds]
    loadConfigStack: Stack


class UnloadModel(OnDevice):
    """Unload an instance."""

    identifier: str


class Specified(TypedDict):
    """A request that only names a model."""

    specifier: Specifier


class Lookup(Specified):
    """Look for a loaded model. `throwIfNotFound` says whether it is an error if there is none."""

    throwIfNotFound: Flag


class BasePredictionConfig(Specified):
    """Get the prediction defaults of a model."""

    ignoreServerSessionConfig: NotRequired[Flag]


class EstimateModelUsage(OnDevice):
    """Estimate the memory that a model needs."""

    modelKey: str
    loadConfigStack: Stack


class EmbedString(TypedDict):
    """Turn a text into a vector."""

    # Here and in predictions the field is modelSpecifier, in all other requests specifier
    # (docs/protocol.md#rule-specifier-field).
    modelSpecifier: Specifier
    inputString: str


class PredictionRequest(TypedDict):
    """What all predictions have."""

    modelSpecifier: Specifier
    predictionConfigStack: Stack
    fuzzyPresetIdentifier: NotRequired[str]
    ignoreServerSessionConfig: NotRequired[Flag]


class Predict(PredictionRequest):
    """Generate the next message of a conversation."""

    history: History


class CompleteRawText(PredictionRequest):
    """Continue a text, without a chat template."""

    rawPrompt: str


class TemplateParameters(TypedDict):
    """Details of rendering a conversation."""

    omitBosToken: NotRequired[Flag]
    omitEosToken: NotRequired[Flag]
    toolDefinitions: NotRequired[Tools]


class ApplyPromptTemplate(Specified):
    """Render a conversation as the model would read it."""

    history: History
    predictionConfigStack: Stack
    opts: TemplateParameters  # required, but may be empty


class Tokenize(Specified):
    """Turn a text into tokens, or count them."""

    inputString: str


class PreloadDraftModel(Specified):
    """Load a draft model ahead of its use."""

    draftModelKey: str


class ModelKey(TypedDict):
    """A request that only names a model key."""

    modelKey: str


class Notify(TypedDict):
    """Show a notification in the app."""

    title: str
    description: NotRequired[str]
    noAutoDismiss: NotRequired[Flag]


class ExperimentFlag(TypedDict):
    """Switch an experiment on or off."""

    code: str
    value: Flag


class StartHttpServer(TypedDict):
    """Start the HTTP server of the app."""

    port: NotRequired[Annotated[Whole, Field(ge=1, le=65535)]]
    cors: NotRequired[Flag]
    networkInterface: NotRequired[str]


class UploadFile(TypedDict):
    """Store a temporary file for this client."""

    name: str
    contentBase64: str


class UploadedFile(TypedDict):
    """Name an uploaded file."""

    fileIdentifier: str


class Parser(TypedDict):
    """A document parser, and its version."""

    library: str
    version: str


class ParseParameters(TypedDict):
    """Details of parsing a document."""

    parserId: NotRequired[Parser]


class ParseDocument(UploadedFile):
    """Turn an uploaded document into text."""

    parseOpts: ParseParameters


class Retrieve(TypedDict):
    """Search uploaded documents for passages about a query."""

    query: str
    fileIdentifiers: list[str]
    config: Fields


class SearchParameters(TypedDict):
    """What to search for. Without a term the server recommends models."""

    searchTerm: NotRequired[str]
    limit: NotRequired[Annotated[Whole, Field(ge=1, le=25)]]
    compatibilityTypes: NotRequired[list[str]]


class SearchModels(TypedDict):
    """Search models to download."""

    opts: SearchParameters


class SearchResultIdentifier(TypedDict):
    """A model that a search found."""

    type: Literal["catalog", "hf"]
    identifier: str


class DownloadOptions(TypedDict):
    """List the forms in which a model can be downloaded."""

    modelSearchResultIdentifier: SearchResultIdentifier


class DownloadModel(TypedDict):
    """Download a model."""

    downloadIdentifier: str


class Artifact(TypedDict):
    """Name an artifact of the hub."""

    owner: Annotated[str, Field(pattern=f"^{_OWNER}$")]
    name: Annotated[str, Field(pattern=f"^{_NAME}$")]


class ArtifactTarget(Artifact):
    """Download an artifact of the hub."""

    type: Literal["artifact"]


class HuggingFaceSource(TypedDict):
    """Name a repository of Hugging Face."""

    type: Literal["huggingface"]
    user: str
    repo: str


class ModelTarget(TypedDict):
    """Download a model that is no artifact."""

    type: Literal["model"]
    source: HuggingFaceSource


class FileNamePreference(TypedDict):
    """Prefer a file."""

    type: Literal["fileName"]
    fileName: str


class QuantizationPreference(TypedDict):
    """Prefer a quantization."""

    type: Literal["quantName"]
    quantName: str


class PlanParameters(TypedDict):
    """What to choose where a model has several forms."""

    resolutionPreference: NotRequired[
        list[Annotated[FileNamePreference | QuantizationPreference, Field(discriminator="type")]]
    ]
    compatibilityTypes: NotRequired[list[str]]


class CreateDownloadPlan(TypedDict):
    """Find out what a download would fetch, and fetch it on request."""

    target: Annotated[ArtifactTarget | ModelTarget, Field(discriminator="type")]
    opts: NotRequired[PlanParameters]


class StaffPicks(TypedDict):
    """Search the models that LM Studio's staff recommends."""

    searchTerm: NotRequired[str]
    limit: NotRequired[Annotated[Whole, Field(ge=1)]]
    compatibilityTypes: NotRequired[list[str]]


class EngineVersion(TypedDict):
    """Name a version of an engine."""

    name: str
    version: str


class SurveyHardware(TypedDict):
    """Choose for which engines the hardware is surveyed: `engines` belongs to `custom`."""

    type: Literal["selected", "all", "custom"]
    engines: NotRequired[list[EngineVersion]]


class DirectConfig(TypedDict):
    """The settings of a plugin, given by the client."""

    type: Literal["direct"]
    config: Fields
    workingDirectoryPath: NotRequired[str]


class PredictionProcess(TypedDict):
    """The settings that a plugin has in a prediction of LM Studio's own chat; only plugins send this."""

    type: Literal["predictionProcess"]
    pci: str
    token: str


PluginConfig = Annotated[DirectConfig | PredictionProcess, Field(discriminator="type")]


class StartToolUseSession(TypedDict):
    """Start a plugin, or an MCP server, and list its tools."""

    pluginIdentifier: str
    pluginConfigSpecifier: PluginConfig


class GenerateWithGenerator(StartToolUseSession):
    """Have a plugin generate the next message of a conversation."""

    tools: Tools
    history: History


class CallTool(TypedDict):
    """Call a tool of an open session."""

    type: Literal["callTool"]
    callId: Number
    name: str
    arguments: Any


class AbortToolCall(TypedDict):
    """Abort a call of an open session. Nothing more is sent for it."""

    type: Literal["abortToolCall"]
    callId: Number
