"""The models that `serve` offers, from its options and the files that they name. Nothing here starts a server."""

from collections.abc import Iterable
from pathlib import Path

from lmstudio_integrations.emulator import Catalog, ModelEntry
from lmstudio_integrations.emulator.catalog import BUNDLED, load, parse_model, read_toml
from lmstudio_integrations.emulator.engines.scripted import Rule, parse_rules
from lmstudio_integrations.errors import LMStudioValueError

SCRIPTED_PACE = 200.0
"""The default speed of scripted models, in tokens per second."""


def build_catalog(
    names: Iterable[str] = (), path: Path | None = None, rules: Path | None = None, *, scripted: bool = False
) -> Catalog:
    """Return the models of a catalog and of the command line; the bundled ones if there are none.

    Args:
        names: Models as `KEY` or `KEY=WEIGHTS`.
        path: A catalog, or a folder of GGUF files.
        rules: A file with rules for scripted LLMs.
        scripted: Whether keys without weights are scripted models.

    Raises:
        LMStudioValueError: If an option or a file has an invalid value; the message names it.
    """
    base = load(path) if path else Catalog()
    names = tuple(names) or (() if path else tuple(BUNDLED))
    entries = [*base.models, *(parse_model(name, scripted=scripted) for name in names)]
    default_rules = load_rules(rules) if rules else ()
    return Catalog(models=tuple(_complete(entry, default_rules) for entry in entries), presets=base.presets)


def _complete(entry: ModelEntry, rules: tuple[Rule, ...]) -> ModelEntry:
    """Set the speed and the rules of a scripted model that has none of its own."""
    if entry.needs_weights:
        return entry
    return entry.model_copy(
        update={
            "tokens_per_second": entry.tokens_per_second or SCRIPTED_PACE,
            "rules": entry.rules or (rules if entry.kind == "llm" else ()),
        }
    )


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Read the `[[rule]]` tables of a TOML file.

    Raises:
        LMStudioValueError: If the file cannot be read, or a rule is invalid; the message names it.
    """
    tables = read_toml(path, "rules")
    unknown = tables.keys() - {"rule"}
    if unknown:
        raise LMStudioValueError(
            f"the rules {str(path)!r}: unknown table {min(unknown)!r}; the file may have [[rule]] only"
        )
    try:
        return parse_rules(tables.get("rule", []))
    except LMStudioValueError as error:
        raise LMStudioValueError(f"the rules {str(path)!r}: {error}") from error
