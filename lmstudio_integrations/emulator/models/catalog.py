"""What the emulator offers: entries of models and devices, presets, plugins, and the files and flags that define them.

An entry sets what the weights do not contain; the engine reads everything else. Nothing here loads a model.
"""

import logging
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from lmstudio_integrations._support.environment import regular
from lmstudio_integrations._support.suggestions import closest_names, explain_unknown_name
from lmstudio_integrations._support.typeguards import is_list, is_mapping, is_object
from lmstudio_integrations.emulator.engines.base import EngineError, ModelMetadata
from lmstudio_integrations.emulator.engines.llama_cpp import header_of, is_embedding
from lmstudio_integrations.emulator.engines.scripted import ANY_TOOL, parse_rules
from lmstudio_integrations.emulator.engines.weights import BUNDLES
from lmstudio_integrations.emulator.plugins import CatalogTable, PluginEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.requests import ARTIFACT
from lmstudio_integrations.types._config_base import Settings
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind

logger: logging.Logger = logging.getLogger(__name__)

EngineName = Literal["scripted", "llama_cpp"]
"""The names of the engines, as their classes have them."""

OWN_IDENTIFIER = "emulator"
"""What the status of LM Link calls this machine; everywhere else, its identifier is null."""

_RESERVED = {"local", OWN_IDENTIFIER}
"""What no device of the catalog may be called: names of this machine."""

BUNDLED: dict[str, ModelKind] = {name: bundle.kind for name, bundle in BUNDLES.items()}
"""The names of the bundled weights, and the kind of each."""


Gibibytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ModelEntry(CatalogTable):
    """One model of the catalog. Fields that are not set are read from the weights.

    `key` is the key that clients request; `aliases` are further names. `path` is `publisher/repository/file`.
    `weights` is a bundled name or a path; with weights, the default engine is `llama_cpp`. `params` is the number of
    parameters, for example `7B`. `context_length` is the default context length of a load, in tokens. `preload` loads
    the model at the start. With `downloaded = false`, clients must download it first. `load_seconds` and
    `tokens_per_second` are the pace of a scripted model, `slots` the predictions that run at once, `rules` the rules
    of a scripted model.

    `memory_gib` is what its weights take in memory (default: their size on disk), and `kib_per_token` what a token of
    context takes. The server's own estimate is that times `estimate_factor`. With `loaded_context_length`, every load
    ends at that context length, whatever was requested.
    """

    key: Annotated[str, Field(min_length=1, max_length=1024)]
    kind: ModelKind = "llm"
    engine: EngineName = "scripted"
    weights: str | None = None
    path: str | None = None
    publisher: str | None = None
    display_name: str | None = None
    architecture: str | None = None
    params: str | None = None
    size_bytes: Annotated[int, Field(ge=1)] | None = None
    quantization: tuple[str, int] | None = None
    context_length: Annotated[int, Field(ge=1)] | None = None
    max_context_length: Annotated[int, Field(ge=1)] | None = None
    embedding_length: Annotated[int, Field(ge=1)] | None = None
    vision: bool | None = None
    tools: bool | None = None
    aliases: tuple[str, ...] = ()
    preload: bool = False
    downloaded: bool = True
    load_seconds: Annotated[float, Field(ge=0)] | None = None
    tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    slots: Annotated[int, Field(ge=1, le=1023)] | None = None
    memory_gib: Gibibytes | None = None
    kib_per_token: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 48.0
    estimate_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    loaded_context_length: Annotated[int, Field(ge=1)] | None = None
    rules: Annotated[tuple[Any, ...], Field(alias="rule")] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_engine(cls, table: Any) -> Any:
        """Use real weights by default, where there are any."""
        return {"engine": "llama_cpp", **table} if is_object(table) and table.get("weights") else table

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

    @property
    def artifact(self) -> tuple[str, str] | None:
        """Owner and name on the hub, from the key or with the publisher; `None` if the hub allows no such name."""
        key = self.key if "/" in self.key else f"{self.publisher or self.full_path.partition('/')[0]}/{self.key}"
        match = ARTIFACT.fullmatch(key.lower())
        return match and (match["owner"], match["name"])

    def engine_settings(self, speed: float = 1.0) -> dict[str, Any]:
        """Return the fields that only the engine uses, on a device that is faster by a factor."""
        values = {
            "rules": self.rules,
            "tokens_per_second": self.tokens_per_second and self.tokens_per_second * speed,
            "load_seconds": self.load_seconds and self.load_seconds / speed,
            "embedding_length": self.embedding_length,
        }
        return {name: value for name, value in values.items() if value not in (None, ())}


class DeviceEntry(CatalogTable):
    """One device of the catalog, which LM Link connects to this machine.

    `name` is what users call it; `identifier`, by default the same, is what clients send. `memory_gib` is its memory
    for models, without a limit by default. `speed` is a factor for the pace of scripted models. `models` are the keys
    of those that it has, by default all of the catalog, downloaded or not. One device may be `preferred`: it comes
    before this machine where a request names no device. With `connected = false`, it is known but away.
    """

    name: Annotated[str, Field(min_length=1)]
    identifier: Annotated[str, Field(min_length=1)] | None = None
    memory_gib: Gibibytes | None = None
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    models: tuple[str, ...] | None = None
    preferred: bool = False
    connected: bool = True

    @field_validator("name", "identifier")
    @classmethod
    def _check_reserved(cls, value: str | None) -> str | None:
        if value in _RESERVED:
            raise LMStudioValueError(f"{value!r} stands for this machine; use another name")
        return value

    @property
    def full_identifier(self) -> str:
        """What clients send."""
        return self.identifier or self.name


class Preset(CatalogTable):
    """A named set of prediction settings; those of a request override it."""

    identifier: Annotated[str, Field(min_length=1)]
    name: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The settings by their wire keys."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models, presets, plugins and linked devices of one server.

    Attributes:
        memory_gib: The memory of this machine for models; `None` for no limit.

    Raises:
        LMStudioValueError: If two models have the same key, two plugins the same identifier, or two devices the same
            name or identifier; if several devices are preferred, or one has an unknown model; or if the memory is not
            above 0.
    """

    models: tuple[ModelEntry, ...] = ()
    presets: tuple[Preset, ...] = ()
    plugins: tuple[PluginEntry, ...] = ()
    devices: tuple[DeviceEntry, ...] = ()
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        _require_unique("model key", (entry.key for entry in self.models))
        _require_unique("plugin", (entry.identifier for entry in self.plugins))
        _require_unique("device", (entry.name for entry in self.devices))
        _require_unique("device identifier", (entry.full_identifier for entry in self.devices))
        self._check_memory()
        self._check_devices()

    def _check_memory(self) -> None:
        memory: object = self.memory_gib
        is_number = isinstance(memory, int | float) and not isinstance(memory, bool) and 0 < memory < float("inf")
        if memory is not None and not is_number:
            raise LMStudioValueError(f"memory_gib: must be a number above 0, got {memory!r}")

    def _check_devices(self) -> None:
        preferred = [repr(entry.name) for entry in self.devices if entry.preferred]
        if len(preferred) > 1:
            raise LMStudioValueError(f"preferred: only one device may be, not {' and '.join(preferred)}")
        keys = [entry.key for entry in self.models]
        for device in self.devices:
            for key in set(device.models or ()).difference(keys):
                hint = explain_unknown_name(key, keys)
                raise LMStudioValueError(f"the device {device.name!r} has the unknown model {key!r}; {hint}")

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


def _require_unique(what: str, names: Iterable[str]) -> None:
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
        "format": metadata.format,
        "displayName": entry.display_name or entry.key,
        "publisher": entry.publisher or path.split("/", maxsplit=1)[0],
        "path": path,
        "sizeBytes": metadata.size_bytes if entry.size_bytes is None else entry.size_bytes,
        "indexedModelIdentifier": path,
        "deviceIdentifier": device,
        "paramsString": entry.params or metadata.params,
        "architecture": entry.architecture or metadata.architecture,
        "quantization": {"name": quantization[0], "bits": quantization[1]} if quantization else None,
        "maxContextLength": entry.max_context_length or metadata.max_context_length,
    }
    if entry.kind == "llm":
        info["vision"] = metadata.vision if entry.vision is None else entry.vision
        info["trainedForToolUse"] = metadata.tools if entry.tools is None else entry.tools
    return {name: value for name, value in info.items() if value is not None or name == "deviceIdentifier"}


def guess_kind(name: str) -> ModelKind:
    """Return the kind of a model by its name; LM Studio's keys of embedding models contain `embed`."""
    return BUNDLED.get(name) or ("embedding" if "embed" in name.casefold() else "llm")


def bundled_entries() -> tuple[ModelEntry, ...]:
    return tuple(parse_model(name) for name in BUNDLED)


def scripted_tools() -> ModelEntry:
    """Return a scripted model that calls the first tool it is offered, and then quotes what the tool returned.

    The bundled models are too small to call tools. With this one, a first agent runs.
    """
    call = {"when": {"role": "user", "tools": [ANY_TOOL]}, "then": [{"tool": ANY_TOOL}]}
    quote = {"when": {"role": "tool"}, "then": "I am a scripted model. The tool returned: {last}"}
    return ModelEntry(key="scripted-tools", rules=(call, quote))


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
    bundle = BUNDLES.get(weights)
    return ModelEntry(
        key=key,
        kind=bundle.kind if bundle else kind_of_file(Path(weights)),
        weights=weights,
        path=bundle.path if bundle else None,
        display_name=bundle.title if bundle else None,
    )


def scan(folder: Path) -> tuple[ModelEntry, ...]:
    """Return an entry for each GGUF file of a folder in LM Studio's own layout, `publisher/repository/file`.

    A key is the file's name in lower case without the quantization, unless two files would have the same key.
    Files that cannot be read, or are not regular files, are skipped with a warning in the log.

    Raises:
        LMStudioValueError: If there is no such folder, or it has no GGUF file.
    """
    candidates = sorted(path for path in folder.rglob("*.gguf") if not path.name.startswith("mmproj"))
    files = [path for path in candidates if _is_usable(path)]
    if not files:
        raise LMStudioValueError(f"there are no GGUF files in {str(folder)!r}")
    short = Counter(_short_key(path) for path in files)
    return tuple(_from_file(folder, path, unique=short[_short_key(path)] == 1) for path in files)


def _is_usable(path: Path) -> bool:
    reason: object = "it is not a regular file"
    try:
        if path.is_file():
            path.open("rb").close()
            return True
    except (OSError, ValueError) as error:
        reason = error
    logger.warning("skipped the model file %s: %s", path, reason)
    return False


_QUANTIZATION = re.compile(r"[-._](i?q\d\w*|[fb]f?\d\d)$", re.IGNORECASE)


def _short_key(path: Path) -> str:
    return _QUANTIZATION.sub("", path.stem).lower()


def _from_file(folder: Path, path: Path, *, unique: bool) -> ModelEntry:
    relative = path.relative_to(folder).as_posix()
    return ModelEntry(
        key=_short_key(path) if unique else relative.removesuffix(path.suffix).lower(),
        kind=kind_of_file(path),
        weights=str(path),
        path=relative if "/" in relative else f"local/{relative}",
    )


def kind_of_file(path: Path) -> ModelKind:
    """Return the kind of a GGUF file, from its header; if that cannot be read, from its name."""
    try:
        return "embedding" if is_embedding(header_of(path.expanduser())) else "llm"
    except EngineError:
        return guess_kind(path.name)


def load(path: Path) -> Catalog:
    """Read a catalog from a TOML file of tables, or from a folder of GGUF files.

    Raises:
        LMStudioValueError: If it cannot be read, or something in it is invalid; the message names it.
    """
    if os.path.isdir(path):  # noqa: PTH112 - raises nothing if it is not permitted
        return Catalog(models=scan(path))
    tables, text = read_toml(path, "catalog")
    try:
        return from_tables(tables)
    except RecursionError:
        raise nested_too_deeply(path, "catalog") from None
    except LMStudioValueError as error:
        line = _line_of(str(error), text, tables)
        raise LMStudioValueError(f"the catalog {str(path)!r}{f', line {line}' if line else ''}: {error}") from error


def _line_of(message: str, text: str, tables: Mapping[str, Any]) -> int | None:
    """Return the line of a TOML file that an error is about: that of the field, else that of its table."""
    lines = [(number, match[1]) for number, line in enumerate(text.splitlines(), 1) if (match := _NAME.match(line))]
    for name, parse in _PARSERS.items():
        starts = [index for index, (_, each) in enumerate(lines) if each == name]
        values = tables.get(name, [])
        for start, end, table in zip(starts, [*starts[1:], None], values if is_list(values) else [], strict=False):
            try:
                parse(table)
            except LMStudioValueError:
                return _line_in(message, lines[start:end]) or lines[start][0]
    return _line_in(message, lines)


def _line_in(message: str, lines: Sequence[tuple[int, str]]) -> int | None:
    """Return the first of some lines with a name that an error contains; of several rules, that of the right one."""
    rule = re.search(r"\brule (\d+):", message)
    rule_lines = [number for number, name in lines if name in {"model.rule", "plugin.rule"}]
    if rule and 1 <= int(rule[1]) <= len(rule_lines):  # inline rules have no such lines
        return rule_lines[int(rule[1]) - 1]
    names = set(re.findall(r"(\w+)(?=[:='])", message.partition(" (got ")[0]))
    return next((number for number, name in lines if name in names), None)


_NAME = re.compile(r"\s*\[*\s*([\w.]+)\s*[]=]")
"""The name of a field or a table, at the beginning of a line."""


def read_toml(path: Path, what: str) -> tuple[dict[str, Any], str]:
    """Return the tables of a TOML file, and its text.

    Raises:
        LMStudioValueError: If it cannot be read; the message contains `what`.
    """
    try:
        text = regular(path).read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except RecursionError:
        raise nested_too_deeply(path, what) from None
    except (OSError, ValueError) as error:  # the latter for text that is no UTF-8, or no TOML
        reason = getattr(error, "strerror", None) or error
        raise LMStudioValueError(f"cannot read the {what} {str(path)!r}: {reason}") from error


def nested_too_deeply(path: Path, what: str) -> LMStudioValueError:
    """Return the error for a file that only a deeper recursion could read."""
    return LMStudioValueError(f"cannot read the {what} {str(path)!r}: it is nested too deeply")


def _tables_of(tables: Mapping[str, Any], name: str) -> Sequence[Any]:
    """Return the tables of one name.

    Raises:
        LMStudioValueError: If there is one table, or a plain value, instead of a list.
    """
    values: Sequence[Any] = tables.get(name, [])
    if not isinstance(values, list | tuple):
        raise LMStudioValueError(f"{name!r} must be a list of tables, each headed [[{name}]], got {values!r}")
    return values


def from_tables(tables: Mapping[str, Any]) -> Catalog:
    """Build a catalog from the tables of a TOML file.

    Raises:
        LMStudioValueError: If a table has an invalid field; the message names it.
    """
    unknown = tables.keys() - {*_PARSERS, "memory_gib"}
    if unknown:
        raise LMStudioValueError(
            f"the catalog has the unknown table {min(unknown)!r}; it may have [[model]], [[preset]], [[plugin]] and "
            "[[device]]"
        )
    return Catalog(
        models=tuple(parse_entry(table) for table in _tables_of(tables, "model")),
        presets=tuple(parse_preset(table) for table in _tables_of(tables, "preset")),
        plugins=tuple(parse_plugin(table) for table in _tables_of(tables, "plugin")),
        devices=tuple(parse_device(table) for table in _tables_of(tables, "device")),
        memory_gib=tables.get("memory_gib"),
    )


def check_weights(catalog: Catalog) -> None:
    """Check that the weights of all models exist.

    Raises:
        LMStudioValueError: Naming the first model whose weights are missing.
    """
    for model in catalog.models:
        file = Path(model.weights or "").expanduser()
        is_there = model.weights in BUNDLED or os.path.isfile(file)  # noqa: PTH113 - raises nothing, as above
        if model.needs_weights and model.downloaded and not is_there:
            raise LMStudioValueError(f"model {model.key!r}: there is no file with the weights {model.weights!r}")


def parse_entry(value: object) -> ModelEntry:
    """Return the entry of a table, or of a key, which stands for a scripted model.

    Raises:
        LMStudioValueError: If it is something else, or a field is unknown or invalid.
    """
    if isinstance(value, ModelEntry):
        return value
    if isinstance(value, str):
        return parse_model(value, scripted="=" not in value)
    if not is_mapping(value):
        raise LMStudioValueError(f"a model must be a table or a key, got {value!r}")
    try:
        return ModelEntry.model_validate(value)
    except ValidationError as error:
        raise LMStudioValueError(f"model {value.get('key', '?')!r}: {_explain(error, ModelEntry)}") from error


def parse_plugin(table: object) -> PluginEntry:
    """Return the entry of a table.

    Raises:
        LMStudioValueError: If it is something else, or a field is unknown or invalid.
    """
    if not is_mapping(table):
        raise LMStudioValueError(f"a plugin must be a table, got {table!r}")
    try:
        return PluginEntry.model_validate(table)
    except ValidationError as error:
        raise LMStudioValueError(f"plugin {table.get('identifier', '?')!r}: {_explain(error, PluginEntry)}") from error


def parse_plugins(plugins: Mapping[str, Any]) -> tuple[PluginEntry, ...]:
    """Return the entries of plugins by identifier; each is a list of functions, or a table without its identifier.

    Raises:
        LMStudioValueError: If one is something else, or a field is unknown or invalid.
    """
    return tuple(
        parse_plugin({**(plugin if is_mapping(plugin) else {"functions": plugin}), "identifier": identifier})
        for identifier, plugin in plugins.items()
    )


def parse_device(table: object) -> DeviceEntry:
    """Return the entry of a table.

    Raises:
        LMStudioValueError: If it is something else, or a field is unknown or invalid.
    """
    if not is_mapping(table):
        raise LMStudioValueError(f"a device must be a table, got {table!r}")
    try:
        return DeviceEntry.model_validate(table)
    except ValidationError as error:
        raise LMStudioValueError(f"device {table.get('name', '?')!r}: {_explain(error, DeviceEntry)}") from error


def parse_preset(table: object) -> Preset:
    """Return the preset of a table: `identifier`, optional `name`, and settings by the names of `LlmPredictionConfig`.

    Raises:
        LMStudioValueError: If a setting is unknown or invalid.
    """
    if not is_mapping(table):
        raise LMStudioValueError(f"a preset must be a table, got {table!r}")
    settings = {name: value for name, value in table.items() if name not in {"identifier", "name"}}
    try:
        config: Settings = LlmPredictionConfig.parse(settings)
        return Preset(identifier=table.get("identifier", ""), name=table.get("name"), fields=config.to_fields())
    except (ValidationError, LMStudioValueError) as error:
        reason = _explain(error, Preset) if isinstance(error, ValidationError) else error
        raise LMStudioValueError(f"preset {table.get('identifier', '?')!r}: {reason}") from error


def _explain(error: ValidationError, kind: type[CatalogTable]) -> str:
    problems: Iterable[Any] = error.errors(include_url=False)
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, problem["loc"])), _explain_one(problem, kind))))
        for problem in problems
    )


def _explain_one(problem: Mapping[str, Any], kind: type[CatalogTable]) -> str:
    if problem["type"] == "value_error":  # our own text, which has the value
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in kind.model_fields.items()]
        similar = closest_names(str(problem["loc"][-1]), names)
        return f"unknown field; did you mean {similar[0]!r}?" if similar else "unknown field"
    if problem["type"] == "missing":
        return str(problem["msg"])
    return f"{problem['msg']} (got {problem['input']!r})"


_PARSERS: dict[str, Callable[[object], object]] = {
    "model": parse_entry,
    "preset": parse_preset,
    "plugin": parse_plugin,
    "device": parse_device,
}
"""What reads the tables of each name."""
