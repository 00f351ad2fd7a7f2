"""What the emulator offers: entries of models and devices, presets, plugins, and the files and flags that define them.

An entry sets what the weights do not contain; the engine reads everything else. Nothing here loads a model.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lmstudio_integrations._support.environment import __version__, regular
from lmstudio_integrations._support.leaves import door
from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations._support.typeguards import is_mapping, is_object
from lmstudio_integrations.emulator.engines.base import ModelMetadata, guess_kind
from lmstudio_integrations.emulator.engines.scripted import parse_rules
from lmstudio_integrations.emulator.engines.table import WEIGHTS_ENGINE, EngineName, weights_engine
from lmstudio_integrations.emulator.errors import NEWEST, NEWEST_BIONIC, Version
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._wire_model import ExplainedModel
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind

T = TypeVar("T")

Application = Literal["lmstudio", "daemon", "bionic"]
"""What servers call themselves in `/lms-status`; `daemon` is llmster."""

BUNDLED: dict[str, ModelKind] = {"smollm2-135m-instruct": "llm", "text-embedding-all-minilm-l6-v2": "embedding"}
"""The keys of the models of a server to which none are given, which are also names of weights; and the kind of each."""


class CatalogTable(ExplainedModel):
    """A table of the catalog; unknown names are an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, defer_build=True
    )


Gibibytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ModelEntry(CatalogTable):
    """One model of the catalog. Fields that are not set are read from the weights."""

    key: Annotated[str, Field(min_length=1, max_length=1024, description="The model key that programs request.")]
    kind: Annotated[ModelKind, Field(description="`llm` (default), `embedding` or `decision`.")] = "llm"
    engine: Annotated[
        EngineName, Field(description=f"`{WEIGHTS_ENGINE}` (default for a model with `weights`) or `scripted`.")
    ] = "scripted"
    weights: Annotated[
        str | None, Field(description=f"{', '.join(f'`{name}`' for name in BUNDLED)}, or the path of a GGUF file.")
    ] = None
    aliases: Annotated[tuple[str, ...], Field(description="Further names.")] = ()
    path: Annotated[str | None, Field(description="The path in listings: `publisher/repository/file`.")] = None
    publisher: Annotated[str | None, Field(description="The publisher in listings.")] = None
    display_name: Annotated[str | None, Field(description="The name for people.")] = None
    architecture: Annotated[str | None, Field(description="The architecture in listings, such as `llama`.")] = None
    format: Annotated[
        str | None,
        Field(
            min_length=1,
            description="The format in listings, such as `gguf`, `torch_safetensors` (vLLM) or `yuzu` (Splash).",
        ),
    ] = None
    params: Annotated[str | None, Field(description="The number of parameters, such as `7B`.")] = None
    size_bytes: Annotated[
        int | None, Field(ge=1, description="The size on disk; 1 MB by default if the model is scripted.")
    ] = None
    quantization: Annotated[
        tuple[str, int] | None, Field(description='The name and bits of the quantization, as in `["Q4_K_M", 4]`.')
    ] = None
    context_length: Annotated[
        int | None, Field(ge=1, description="The default context length of a load, in tokens.")
    ] = None
    max_context_length: Annotated[int | None, Field(ge=1, description="The longest context length, in tokens.")] = None
    loaded_context_length: Annotated[
        int | None,
        Field(
            ge=1,
            description="The context length of every load, whatever was requested, as of a server that fits it to the "
            "memory.",
        ),
    ] = None
    embedding_length: Annotated[
        int | None, Field(ge=1, description="The length of the vectors of a scripted embedding model.")
    ] = None
    vision: Annotated[bool | None, Field(description="Whether it supports images.")] = None
    tools: Annotated[bool | None, Field(description="Whether it was trained to use tools.")] = None
    reasoning_options: Annotated[
        tuple[str, ...],
        Field(description="The efforts of reasoning that it allows, over HTTP: `off`, `on`, and levels such as `low`."),
    ] = ()
    reasoning_default: Annotated[
        str | None, Field(description="Which of them applies by default; the last one, if it is not named.")
    ] = None
    preload: Annotated[bool, Field(description="Whether it is loaded at the start.")] = False
    downloaded: Annotated[
        bool, Field(description="With `false`, clients must download it before they can load it.")
    ] = True
    slots: Annotated[int | None, Field(ge=1, le=1023, description="Predictions that run at once.")] = None
    memory_gib: Annotated[
        Gibibytes | None,
        Field(description="The memory of its weights; by default their size on disk."),
    ] = None
    kib_per_token: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="The memory of a token of context; 48 by default.")
    ] = 48.0
    estimate_factor: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="What the server's estimates of its memory are, as a multiple of the truth.",
        ),
    ] = 1.0
    load_seconds: Annotated[float | None, Field(ge=0, description="How long a scripted model loads.")] = None
    tokens_per_second: Annotated[float | None, Field(gt=0, description="How fast a scripted model writes.")] = None
    rules: Annotated[
        tuple[Any, ...],
        Field(
            alias="rule",
            description="The rules of a scripted model, of which the first that applies counts, such as "
            '`{"when": {"last": "hot"}, "then": "Yes."}`.',
        ),
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Read a key alone, which stands for a scripted model; use real weights by default, where there are any."""
        if isinstance(value, str):
            return parse_model(value, scripted="=" not in value).model_dump(exclude_unset=True)
        return {"engine": WEIGHTS_ENGINE, **value} if is_object(value) and value.get("weights") else value

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        parse_rules(rules, info.data.get("kind", "llm"))
        return rules

    @property
    def needs_weights(self) -> bool:
        """Whether its engine reads weights."""
        return self.engine != "scripted"

    @property
    def full_path(self) -> str:
        """The path of the model for clients; that of a scripted model begins with `scripted/`."""
        return self.path or f"{self.publisher or ('local' if self.needs_weights else self.engine)}/{self.key}"

    def engine_settings(self, speed: float = 1.0) -> dict[str, Any]:
        """Return the fields that only the engine uses, on a device that is faster by a factor."""
        values = {
            "rules": self.rules,
            "tokens_per_second": self.tokens_per_second and self.tokens_per_second * speed,
            "load_seconds": self.load_seconds and self.load_seconds / speed,
            "embedding_length": self.embedding_length,
        }
        return {name: value for name, value in values.items() if value not in (None, ())}


_LEAVES = {"devices": "the memory of devices, and LM Link, in the emulator", "plugins": "plugins in the emulator"}


def leaf_of_catalog(module: Literal["devices", "plugins"]) -> Any:
    """Return `devices.py`, which has the memory of machines and LM Link, or `plugins.py`.

    Raises:
        ImportError: It is not in this copy.
    """
    with door(_LEAVES[module]):
        return import_module(f"lmstudio_integrations.emulator.models.{module}")


_TABLES: dict[str, Callable[[], type[CatalogTable]]] = {
    "model": lambda: ModelEntry,
    "preset": lambda: Preset,
    "plugin": lambda: leaf_of_catalog("plugins").PluginEntry,
    "device": lambda: leaf_of_catalog("devices").DeviceEntry,
}


def _read_table(kind: str, value: object) -> CatalogTable:
    return _TABLES[kind]().model_validate(value)


_MEMORY_FIELDS = {"memory_gib", "kib_per_token", "estimate_factor"}
"""The fields of a model that only matter to devices with a memory."""


class Preset(CatalogTable):
    """A named set of prediction settings; those of a request override it."""

    identifier: Annotated[str, Field(min_length=1, description="What requests name.")]
    name: Annotated[str | None, Field(description="Another name.")] = None
    fields: Annotated[
        dict[str, Any],
        Field(description="The settings by their wire keys; in a table, they stand beside `identifier` instead."),
    ] = Field(default_factory=dict[str, Any])

    @model_validator(mode="before")
    @classmethod
    def _read_settings(cls, value: Any) -> Any:
        """Read the settings of a table, by the names of `LlmPredictionConfig`."""
        if not is_object(value) or "fields" in value:
            return value
        settings = {name: setting for name, setting in value.items() if name not in cls.model_fields}
        own = {name: setting for name, setting in value.items() if name in cls.model_fields}
        return own | {"fields": LlmPredictionConfig.parse(settings).to_fields()}


class Catalog(CatalogTable):
    """All models, presets, plugins and linked devices of one server."""

    models: Annotated[tuple[ModelEntry, ...], Field(alias="model")] = ()
    presets: Annotated[tuple[Preset, ...], Field(alias="preset")] = ()
    plugins: Annotated[
        tuple[Annotated[Any, PlainValidator(partial(_read_table, "plugin"))], ...],
        Field(alias="plugin"),
    ] = ()
    devices: Annotated[
        tuple[Annotated[Any, PlainValidator(partial(_read_table, "device"))], ...],
        Field(alias="device"),
    ] = ()
    memory_gib: Annotated[
        Gibibytes | None, Field(description="The memory of this machine for models; by default without a limit.")
    ] = None
    application: Annotated[
        Application,
        Field(description="The application it plays: `lmstudio` (default), `daemon` (llmster) or `bionic`."),
    ] = "lmstudio"
    version: Annotated[
        str,
        Field(
            min_length=1,
            description="The version it claims, whose errors it has; by default that of this package, with the errors "
            "of the newest.",
        ),
    ] = __version__

    @property
    def played(self) -> Version:
        """The version whose words errors have. llmster counts on its own: its 0.0.21 came with LM Studio 0.4.21."""
        numbers = tuple(map(int, re.findall("[0-9]{1,9}", self.version)[:3]))
        if self.version == __version__ or not numbers:
            return NEWEST_BIONIC if self.application == "bionic" else NEWEST
        is_llmster = self.application == "daemon" and numbers[:2] == (0, 0)
        return (0, 4, *numbers[2:]) if is_llmster else numbers

    @property
    def names_devices(self) -> bool:
        """Whether it has linked devices, or this machine has a memory."""
        return bool(self.devices) or self.memory_gib is not None

    @classmethod
    def parse(cls, tables: Mapping[str, Any]) -> Self:
        """Read the tables of a TOML file, or the same values in Python.

        Raises:
            LMStudioValueError: If a field is invalid; the message names it and the table.
        """
        try:
            return cls.model_validate(tables)
        except ValidationError as error:
            problems = [_explain(each, tables) for each in error.errors()]
        raise LMStudioValueError("\n  ".join(problems))

    @field_validator("plugins", mode="before")
    @classmethod
    def _read_plugins(cls, plugins: Any) -> Any:
        """Read plugins by identifier, each a list of functions, or a table without its identifier."""
        if not is_mapping(plugins):
            return plugins
        tables = {name: each if is_mapping(each) else {"functions": each} for name, each in plugins.items()}
        return [{**table, "identifier": name} for name, table in tables.items()]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        require_unique("model key", (entry.key for entry in self.models))
        require_unique("plugin", (entry.identifier for entry in self.plugins))
        fields_of_models = {name for entry in self.models for name in entry.model_fields_set}
        if self.names_devices or fields_of_models & _MEMORY_FIELDS:
            leaf_of_catalog("devices").check(self)
        return self

    def find(self, name: str) -> list[ModelEntry]:
        """Return the entries for a name, best first: a key, an alias or a path (docs/protocol.md#model-matching)."""
        path = name.casefold()
        return (
            [entry for entry in self.models if entry.key == name]
            or [entry for entry in self.models if name in entry.aliases]
            # Without a slash, one letter of a publisher's name would match.
            or [entry for entry in self.models if "/" in path and entry.full_path.casefold().startswith(path)]
        )

    def preset(self, name: str) -> Preset | None:
        """Return the preset of an identifier or a name, ignoring case."""
        requested = name.casefold()
        names = ((preset, {preset.identifier, preset.name or preset.identifier}) for preset in self.presets)
        return next((preset for preset, known in names if requested in map(str.casefold, known)), None)


def _explain(problem: Any, tables: Mapping[str, Any]) -> str:
    """Return what is wrong in a table, which is named as in the file."""
    kind, *place = problem["loc"] or ("",)
    where, table = "", cast("type[CatalogTable]", Catalog)
    if kind.removesuffix("s") in _TABLES and place:
        kind, listed = kind.removesuffix("s"), cast("Iterable[object]", tables.get(kind))
        table, at = _TABLES[kind](), place.pop(0)
        entry = list(listed)[at] if isinstance(at, int) else None  # of plugins by identifier, this
        name = next((entry[name] for name in _NAMES if name in entry), None) if is_mapping(entry) else entry
        where = f"{kind} number {at + 1}" if name is None and isinstance(at, int) else f"{kind} {name!r}"
    elif kind:
        place = [kind, *place]
    return ": ".join(filter(None, (where, ".".join(map(str, place)), _explain_alone(problem, table))))


_NAMES = ("key", "identifier", "name")
"""What names a table, best first."""


def _explain_alone(problem: Any, table: type[CatalogTable]) -> str:
    match problem["type"]:
        case "value_error":  # our own text, which has the value
            return str(problem["ctx"]["error"])
        case "extra_forbidden":
            names = [each for name, field in table.model_fields.items() for each in {name, field.alias or name}]
            return f"unknown field; {explain_unknown_name(str(problem['loc'][-1]), names)}"
        case "missing":
            return str(problem["msg"])
        case "model_type":
            return f"it must be a table (got {problem['input']!r})"
        case "tuple_type" if len(problem["loc"]) == 1:
            return f"must be a list of tables, each headed [[{problem['loc'][0]}]] (got {problem['input']!r})"
        case _:
            return f"{problem['msg']} (got {problem['input']!r})"


def require_unique(what: str, names: Iterable[str]) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise LMStudioValueError(f"the catalog has the {what} {name!r} twice")


def describe(entry: ModelEntry, metadata: ModelMetadata, device: str | None = None) -> dict[str, Any]:
    """Return the wire form of a model on a device, with every required field (docs/protocol.md#model-info)."""
    path = entry.full_path
    quantization = entry.quantization or metadata.quantization
    info: dict[str, Any] = {
        "type": entry.kind,
        "modelKey": entry.key,
        "format": entry.format or metadata.format,
        "displayName": entry.display_name or entry.key,
        "publisher": entry.publisher or path.split("/", maxsplit=1)[0],
        "path": path,
        "sizeBytes": metadata.size_bytes if entry.size_bytes is None else entry.size_bytes,
        "indexedModelIdentifier": path,
        "deviceIdentifier": device,
        "paramsString": entry.params or metadata.params,
        "architecture": entry.architecture or metadata.architecture,
        "quantization": {"name": quantization[0], "bits": quantization[1]} if quantization else None,
    }
    if entry.kind == "llm":
        info["vision"] = metadata.vision if entry.vision is None else entry.vision
        info["trainedForToolUse"] = metadata.tools if entry.tools is None else entry.tools
    elif entry.kind == "decision":
        info["hasVisionAdapter"] = metadata.vision if entry.vision is None else entry.vision
    info["maxContextLength"] = entry.max_context_length or metadata.max_context_length
    return {name: value for name, value in info.items() if value is not None or name == "deviceIdentifier"}


def parse_model(text: str, *, scripted: bool = False) -> ModelEntry:
    """Read `KEY` or `KEY=WEIGHTS`, where the weights are a bundled name or a path.

    Args:
        text: The text on the command line.
        scripted: Whether a key without weights is a scripted model, even a bundled one's.

    Raises:
        LMStudioValueError: If a key without weights is neither bundled nor scripted.
    """
    key, equals_sign, weights = text.partition("=")
    if not key or (equals_sign and not weights):
        raise LMStudioValueError(f"a model must be KEY or KEY=WEIGHTS, got {text!r}")
    if not equals_sign:
        if scripted:
            return ModelEntry(key=key, kind=guess_kind(key))
        if key not in BUNDLED:
            raise LMStudioValueError(
                f"the model {key!r} has no weights; write {key}=WEIGHTS with a path to a GGUF file or one of "
                f"{', '.join(BUNDLED)}, or add --scripted"
            )
        weights = key
    found = weights_engine().identify(weights)
    return ModelEntry(
        key=key,
        kind=found.kind,
        weights=weights,
        path=found.path,
        display_name=found.title,
    )


def scan(folder: Path) -> tuple[ModelEntry, ...]:
    """Return an entry for each GGUF file of a folder in LM Studio's own layout, `publisher/repository/file`.

    A key is the file's name in lower case without the quantization, unless two files would have the same key.

    Raises:
        LMStudioValueError: If there is no such folder, or it has no GGUF file.
    """
    engine = weights_engine()
    files = engine.find(folder)
    if not files:
        raise LMStudioValueError(f"there are no GGUF files in {str(folder)!r}")
    short = Counter(_short_key(path) for path in files)
    relative = {path: path.relative_to(folder).as_posix() for path in files}
    return tuple(
        ModelEntry(
            key=_short_key(path) if short[_short_key(path)] == 1 else name.removesuffix(path.suffix).lower(),
            kind=engine.identify(str(path)).kind,
            weights=str(path),
            path=name if "/" in name else f"local/{name}",
        )
        for path, name in relative.items()
    )


def _short_key(path: Path) -> str:
    return re.sub(r"[-._](i?q\d\w*|[fb]f?\d\d)$", "", path.stem.lower())


def load(path: Path) -> Catalog:
    """Read a catalog from a TOML file of tables, or from a folder of GGUF files.

    Raises:
        LMStudioValueError: If it cannot be read, or something in it is invalid; the message names it.
    """
    if os.path.isdir(path):  # noqa: PTH112 - raises nothing if it is not permitted
        return Catalog(models=scan(path))
    return read_toml(path, "catalog", Catalog.parse)


def read_toml(path: Path, what: str, read: Callable[[Mapping[str, Any]], T]) -> T:
    """Return what is read of the tables of a TOML file.

    Raises:
        LMStudioValueError: If it cannot be read, or something in it is invalid; the message contains `what`.
    """
    try:
        return read(tomllib.loads(regular(path).read_text(encoding="utf-8")))
    except LMStudioValueError as error:
        raise LMStudioValueError(f"the {what} {str(path)!r}: {error}") from None
    except RecursionError:
        raise LMStudioValueError(f"cannot read the {what} {str(path)!r}: it is nested too deeply") from None
    except (OSError, ValueError) as error:  # the latter for text that is no UTF-8, or no TOML
        reason = getattr(error, "strerror", None) or error
        raise LMStudioValueError(f"cannot read the {what} {str(path)!r}: {reason}") from None


def check_weights(catalog: Catalog) -> None:
    """Check that the weights of all models exist.

    Raises:
        LMStudioValueError: Naming the first model whose weights are missing.
    """
    for model in catalog.models:
        file = Path(model.weights or "").expanduser()
        is_there = model.weights in BUNDLED or os.path.isfile(file)  # noqa: PTH113 - raises nothing, as above
        if model.needs_weights and model.downloaded and not is_there:
            raise LMStudioValueError(
                f"model {model.key!r}: there is no file with the weights {model.weights!r}; bundled are "
                f"{', '.join(BUNDLED)}"
            )
