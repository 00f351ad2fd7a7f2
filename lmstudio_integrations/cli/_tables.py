"""Tables of models and tools, as lines. Pure functions."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len, set_cell_size

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cli._formatting import device_name, duration, finite, model_size, wrapped
from lmstudio_integrations.types.models import LlmInfo, ModelInfo, ModelInstanceInfo
from lmstudio_integrations.types.tools import ToolFunction


def downloaded_lines(
    title: str,
    models: Iterable[ModelInfo],
    loaded: Iterable[ModelInstanceInfo],
    devices: Mapping[str | None, str],
    width: int,
) -> list[str]:
    """Return a table of downloaded models of one kind, what they can do, and how often each is loaded.

    Args:
        title: The kind.
        models: The models.
        loaded: The instances of any models.
        devices: As for `device_name`.
        width: The columns of the terminal.
    """
    count = Counter((instance.model_key, instance.device_identifier) for instance in loaded)
    rows = [
        (
            info.model_key,
            info.params_string or "",
            info.architecture or "",
            model_size(info.size_bytes),
            _abilities(info),
            device_name(info, devices),
            _loaded(count[info.model_key, info.device_identifier]),
        )
        for info in sorted(models, key=lambda info: info.model_key)
    ]
    header = (title, "PARAMS", "ARCH", "SIZE", "ABILITIES", "DEVICE", "")
    return table_lines(header, rows, width, omit=("ARCH", "PARAMS", "ABILITIES", "SIZE"))


def variant_lines(variants: Iterable[ModelInfo], selected: str | None, width: int) -> list[str]:
    """Return a table of the variants of a model, each with the key to load it with.

    Args:
        variants: The variants.
        selected: The key of the one that the key of the model loads.
        width: The columns of the terminal.
    """
    rows = [
        (
            info.model_key,
            info.quantization.name if info.quantization else "",
            info.format,
            model_size(info.size_bytes),
            "✓ SELECTED" if info.model_key == selected else "",
        )
        for info in sorted(variants, key=lambda info: info.size_bytes)
    ]
    return table_lines(("VARIANT", "QUANT", "FORMAT", "SIZE", ""), rows, width, omit=("FORMAT", "QUANT", "SIZE"))


def loaded_lines(
    loaded: Iterable[tuple[ModelInstanceInfo, str]], devices: Mapping[str | None, str], now: float, width: int
) -> list[str]:
    """Return a table of loaded models.

    Args:
        loaded: The instances, each with what it does.
        devices: As for `device_name`.
        now: The time, in seconds since 1970.
        width: The columns of the terminal.
    """
    rows = [
        (
            info.identifier,
            device_name(info, devices),
            info.model_key,
            status.upper(),
            model_size(info.size_bytes),
            str(info.context_length),
            time_to_live(info, now),
        )
        for info, status in sorted(loaded, key=lambda each: each[0].identifier)
    ]
    header = ("IDENTIFIER", "DEVICE", "MODEL", "STATUS", "SIZE", "CONTEXT", "TTL")
    return table_lines(header, rows, width, omit=("MODEL", "CONTEXT", "SIZE", "TTL"))


def time_to_live(info: ModelInstanceInfo, now: float) -> str:
    """Return how long an idle model stays loaded, from now and in all; nothing if that has no end."""
    remaining = remaining_seconds(info, now)
    if remaining is None or info.ttl_ms is None:
        return ""
    return f"{duration(remaining)} / {duration(info.ttl_ms / 1000)}"


def remaining_seconds(info: ModelInstanceInfo, now: float) -> float | None:
    """Return how long an idle model stays loaded from now; `None` if that has no end."""
    if info.ttl_ms is None:
        return None
    idle_ms = 0 if info.last_used_time is None else now * 1000 - info.last_used_time
    return finite(min(max(info.ttl_ms - idle_ms, 0), info.ttl_ms) / 1000)  # the two clocks may differ


def tool_lines(tools: Iterable[ToolFunction], width: int) -> list[str]:
    """Return a table of tools, each followed by its parameters; the optional ones are in brackets.

    Args:
        tools: The tools.
        width: The columns of the terminal. Long descriptions are wrapped.
    """
    header = ("TOOL", "TYPE", "DESCRIPTION")
    lines = table_lines(header, [row for tool in tools for row in _tool_rows(tool)], width, omit=())
    start = lines[0].find(header[-1])
    indent = start if 0 < start <= width - _NARROWEST else 4
    return [part for line in lines for part in wrapped(line, width, indent).split("\n")]


_NARROWEST = 20
"""Columns of a description. The further lines of one that has less begin at the left."""


def _tool_rows(tool: ToolFunction) -> Iterator[tuple[str, str, str]]:
    yield tool.name, "", one_line(tool.description or "")
    schema = tool.parameters or {}
    properties, required = schema.get("properties"), schema.get("required")
    for name, parameter in (properties if is_object(properties) else {}).items():
        is_required = is_list(required) and name in required
        yield f"  {name if is_required else f'[{name}]'}", _type_in_words(parameter), _parameter_description(parameter)


def _type_in_words(schema: object) -> str:
    """Return the type of a value, by its JSON schema: that of the items of a list, and no other nested one."""
    if not is_object(schema):
        return "any"
    choices, items = schema.get("anyOf", schema.get("oneOf")), schema.get("items")
    if is_list(choices):
        return " or ".join(dict.fromkeys(map(_type_name, choices)))
    name = _type_name(schema)
    return f"array of {_type_name(items)}" if name == "array" and is_object(items) else name


def _type_name(schema: object) -> str:
    kind = schema.get("type", "any") if is_object(schema) else "any"
    return " or ".join(map(str, kind if is_list(kind) else [kind]))


def _parameter_description(schema: object) -> str:
    if not is_object(schema):
        return ""
    description, values = schema.get("description"), schema.get("enum")
    parts = [one_line(description)] if isinstance(description, str) else []
    if is_list(values):
        parts.append(f"({', '.join(json.dumps(value, ensure_ascii=False) for value in values)})")
    return " ".join(parts)


def _loaded(count: int) -> str:
    if count == 0:
        return ""
    return "✓ LOADED" if count == 1 else f"✓ LOADED ({count})"


def _abilities(info: ModelInfo) -> str:
    if not isinstance(info, LlmInfo):
        return ""
    return ", ".join(name for name, has in (("tools", info.trained_for_tool_use), ("vision", info.vision)) if has)


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, omit: Sequence[str], cut: str = ""
) -> list[str]:
    """Return a table as lines, without columns that are empty, nor those that make it wider than the terminal.

    Args:
        header: The names of the columns.
        rows: The cells.
        width: The columns of the terminal.
        omit: The columns to leave out, the least important first.
        cut: The column to cut if the table is still too wide.
    """
    columns = {name: cells for name, *cells in zip(header, *rows, strict=True) if any(cells)}
    widths = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}

    def excess() -> int:
        return sum(widths.values()) + 2 * (len(widths) - 1) - width

    for name in omit:
        if excess() > 0:
            widths.pop(name, None)
    if cut and excess() > 0:
        widths[cut] = max(widths[cut] - excess(), 1)
    table = zip(*((name, *columns[name]) for name in widths), strict=True)
    padded = (map(_fitted, row, widths.values()) for row in table)
    return ["  ".join(row).rstrip() for row in padded]


def _fitted(cell: str, size: int) -> str:
    """Return a cell in exactly this many columns."""
    return set_cell_size(cell, size) if cell_len(cell) <= size else f"{set_cell_size(cell, size - 1)}…"
