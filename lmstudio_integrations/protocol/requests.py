"""What a request carries, endpoint by endpoint, as it travels (protocol §4).

Typed dicts: a client writes them as they are, and type checkers see to it that nothing wrong is sent; a server has
pydantic check what comes, and read the values that have a type of their own.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field, GetPydanticSchema, Strict
from typing_extensions import TypedDict

from lmstudio_integrations.protocol.kv_config import KvConfig, KvConfigStack
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.models import ModelSpecifier
from lmstudio_integrations.types.tools import Tool


def _read_as(kind: Any) -> GetPydanticSchema:
    return GetPydanticSchema(lambda _source, handler: handler(kind))


# JSON on the way out; whoever validates them gets them as the type that is named.
Specifier = Annotated[Any, _read_as(ModelSpecifier)]
History = Annotated[Any, _read_as(ChatHistory)]
Stack = Annotated[Any, _read_as(KvConfigStack)]
Fields = Annotated[Any, _read_as(KvConfig)]
Tools = Annotated[Any, _read_as(list[Tool])]


def _without_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# As strict as the reference server: no number is a text, and JSON does not tell 1.0 from 1.
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_without_fraction)]
Milliseconds = Annotated[Whole, Field(ge=1, le=2**53 - 1)]


class LoadModel(TypedDict):
    """Load a new instance. An absent `identifier` lets the server choose, an absent TTL means none."""

    modelKey: str
    identifier: NotRequired[str]
    deviceIdentifier: NotRequired[str | None]
    ttlMs: NotRequired[Milliseconds]
    loadConfigStack: Stack


class GetOrLoad(TypedDict):
    """Get a loaded instance by identifier or key, or load the key."""

    identifier: str
    deviceIdentifier: NotRequired[str | None]
    loadTtlMs: NotRequired[Milliseconds]
    loadConfigStack: Stack


class UnloadModel(TypedDict):
    """Unload an instance."""

    identifier: str
    deviceIdentifier: NotRequired[str | None]


class Specified(TypedDict):
    """Anything that only says which model."""

    specifier: Specifier


class Lookup(Specified):
    """Look for a loaded model; whether it is an error when there is none."""

    throwIfNotFound: Flag


class BasePredictionConfig(Specified):
    """Ask for the prediction defaults of a model."""

    ignoreServerSessionConfig: NotRequired[Flag]


class EstimateModelUsage(TypedDict):
    """Ask how much memory a model would take."""

    modelKey: str
    deviceIdentifier: NotRequired[str | None]
    loadConfigStack: Stack


class Predict(TypedDict):
    """Generate the next message of a conversation."""

    modelSpecifier: Specifier
    history: History
    predictionConfigStack: Stack
    fuzzyPresetIdentifier: NotRequired[str]
    ignoreServerSessionConfig: NotRequired[Flag]


class CompleteRawText(TypedDict):
    """Continue a text, without a chat template."""

    modelSpecifier: Specifier
    rawPrompt: str
    predictionConfigStack: Stack
    fuzzyPresetIdentifier: NotRequired[str]
    ignoreServerSessionConfig: NotRequired[Flag]


class TemplateOptions(TypedDict):
    """Details of rendering a conversation."""

    omitBosToken: NotRequired[Flag]
    omitEosToken: NotRequired[Flag]
    toolDefinitions: NotRequired[Tools]


class ApplyPromptTemplate(Specified):
    """Render a conversation as the model would read it."""

    history: History
    predictionConfigStack: Stack
    opts: TemplateOptions


class Tokenize(Specified):
    """Turn a text into tokens, or count them."""

    inputString: str


class PreloadDraftModel(Specified):
    """Load a draft model ahead of its use."""

    draftModelKey: str


class EmbedString(TypedDict):
    """Turn a text into a vector."""

    modelSpecifier: Specifier
    inputString: str


class ModelKey(TypedDict):
    """Anything that only names a model key."""

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


class LocalFile(TypedDict):
    """Name a local file."""

    fileName: str


class UploadedFile(TypedDict):
    """Name an uploaded file."""

    fileIdentifier: str


class Parser(TypedDict):
    """A document parser, and its version."""

    library: str
    version: str


class ParseOptions(TypedDict):
    """Details of parsing a document."""

    parserId: NotRequired[Parser]


class ParseDocument(UploadedFile):
    """Turn an uploaded document into text."""

    parseOpts: ParseOptions


class Retrieve(TypedDict):
    """Search uploaded documents for what bears on a query."""

    query: str
    fileIdentifiers: list[str]
    config: Fields


class SearchOptions(TypedDict):
    """What to look for; without a term the server recommends."""

    searchTerm: NotRequired[str]
    limit: NotRequired[Annotated[Whole, Field(ge=1, le=25)]]
    compatibilityTypes: NotRequired[list[str]]


class SearchModels(TypedDict):
    """Search models to download."""

    opts: SearchOptions


class SearchResultIdentifier(TypedDict):
    """A model that a search found."""

    type: Literal["catalog", "hf"]
    identifier: str


class DownloadOptions(TypedDict):
    """Ask in which forms a model can be downloaded."""

    modelSearchResultIdentifier: SearchResultIdentifier


class DownloadModel(TypedDict):
    """Download a model."""

    downloadIdentifier: str


class StaffPicks(TypedDict):
    """Search the models that LM Studio's staff recommends."""

    searchTerm: NotRequired[str]
    limit: NotRequired[Annotated[Whole, Field(ge=1)]]
    compatibilityTypes: NotRequired[list[str]]


class LinkDisabled(TypedDict):
    """Switch LM Link off or on for this device."""

    disabled: Flag


class DeviceName(TypedDict):
    """Name this device for LM Link."""

    deviceName: str


class DeviceIdentifier(TypedDict):
    """Choose a device of LM Link."""

    deviceIdentifier: str
