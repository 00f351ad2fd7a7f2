"""Builds the emulator from the options of `serve`, without starting it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmstudio_integrations.client.transport.addresses import DISCOVERY_PORTS
from lmstudio_integrations.emulator import Catalog, Emulator, Limits, ModelEntry
from lmstudio_integrations.emulator.catalog import BUNDLED, load, parse_model, read_toml
from lmstudio_integrations.emulator.engines.scripted import parse_rules
from lmstudio_integrations.emulator.limits import MIB
from lmstudio_integrations.errors import LMStudioValueError

SCRIPTED_PACE = 200.0
"""The default speed of scripted models, in tokens per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """The command line of `serve`."""

    host: str = "127.0.0.1"
    port: int | None = None
    models: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    catalog: Path | None = None
    rules: Path | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)
    scripted: bool = False
    offline: bool = False
    worker_memory: int | None = None
    """In MiB."""
    limits: Limits = field(default_factory=Limits)


def build(config: ServeConfig) -> Emulator:
    """Return the emulator, not yet started.

    Raises:
        LMStudioValueError: If an option or a file has an invalid value; the message names it.
    """
    return Emulator(
        catalog=build_catalog(config),
        host=config.host,
        port=DISCOVERY_PORTS if config.port is None else config.port,
        tokens=config.tokens,
        load=config.load,
        offline=config.offline,
        worker_memory=None if config.worker_memory is None else config.worker_memory * MIB,
        limits=config.limits,
    )


def build_catalog(config: ServeConfig) -> Catalog:
    """Return the models of the catalog file and of the options; the bundled ones if there are none.

    Raises:
        LMStudioValueError: If an option or a file has an invalid value; the message names it.
    """
    base = load(config.catalog) if config.catalog else Catalog()
    names = config.models or (() if config.catalog else tuple(BUNDLED))
    entries = [*base.models, *(parse_model(name, scripted=config.scripted) for name in names)]
    rules = load_rules(config.rules) if config.rules else ()
    return Catalog(models=tuple(_complete(entry, rules) for entry in entries), presets=base.presets)


def _complete(entry: ModelEntry, rules: tuple[Any, ...]) -> ModelEntry:
    """Set the speed and the rules of a scripted model that has none of its own."""
    if entry.engine != "scripted":
        return entry
    return entry.model_copy(
        update={
            "tokens_per_second": entry.tokens_per_second or SCRIPTED_PACE,
            "rules": entry.rules or (rules if entry.kind == "llm" else ()),
        }
    )


def load_rules(path: Path) -> tuple[Any, ...]:
    """Read the `[[rule]]` tables of a TOML file.

    Raises:
        LMStudioValueError: If the file cannot be read, or a rule is invalid; the message names it.
    """
    tables = read_toml(path, "rules")
    try:
        return parse_rules(_only_rules(tables))
    except LMStudioValueError as error:
        raise LMStudioValueError(f"the rules {str(path)!r}: {error}") from error


def _only_rules(tables: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    unknown = tables.keys() - {"rule"}
    if unknown:
        raise LMStudioValueError(f"unknown table {min(unknown)!r}; the file may have [[rule]] only")
    rules: list[Mapping[str, Any]] = tables.get("rule", [])
    return rules
