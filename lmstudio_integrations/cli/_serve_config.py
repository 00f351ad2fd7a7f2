"""From the flags of `serve` to the emulator that they ask for. Starts nothing."""

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
"""Tokens per second of a scripted model for which the catalog says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What stands on the command line of `serve`."""

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


def build(options: ServeOptions) -> Emulator:
    """Return the emulator, not yet started.

    Raises:
        LMStudioValueError: If a flag or a file has a value that cannot be; the message names it.
    """
    return Emulator(
        catalog=build_catalog(options),
        host=options.host,
        port=DISCOVERY_PORTS if options.port is None else options.port,
        tokens=options.tokens,
        load=options.load,
        offline=options.offline,
        worker_memory=None if options.worker_memory is None else options.worker_memory * MIB,
        limits=options.limits,
    )


def build_catalog(options: ServeOptions) -> Catalog:
    """Return the models of the catalog file and of the flags; the bundled ones where neither names any.

    Raises:
        LMStudioValueError: If a flag or a file has a value that cannot be; the message names it.
    """
    base = load(options.catalog) if options.catalog else Catalog()
    names = options.models or (() if options.catalog else tuple(BUNDLED))
    entries = [*base.models, *(parse_model(name, scripted=options.scripted) for name in names)]
    rules = load_rules(options.rules) if options.rules else ()
    return Catalog(models=tuple(_complete(entry, rules) for entry in entries), presets=base.presets)


def _complete(entry: ModelEntry, rules: tuple[Any, ...]) -> ModelEntry:
    """Give a scripted model a pace, and an LLM rules, where it has none of its own."""
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
        LMStudioValueError: If the file cannot be read, or a rule is not valid; the message names it.
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
