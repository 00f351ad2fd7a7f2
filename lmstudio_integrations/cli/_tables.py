"""Tables of models, as lines. Pure functions."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from lmstudio_integrations.cli._formatting import duration, file_size
from lmstudio_integrations.types.models import ModelInfo, ModelInstanceInfo


def downloaded_lines(title: str, models: Iterable[ModelInfo], loaded: Iterable[ModelInstanceInfo]) -> list[str]:
    """Return a table of downloaded models of one kind, and how often each is loaded."""
    count = Counter(instance.model_key for instance in loaded)
    rows = [
        (
            info.model_key,
            info.params_string or "",
            info.architecture or "",
            file_size(info.size_bytes),
            _loaded(count[info.model_key]),
        )
        for info in sorted(models, key=lambda info: info.model_key)
    ]
    return _lines((title, "PARAMS", "ARCH", "SIZE", ""), *rows)


def loaded_lines(loaded: Iterable[tuple[ModelInstanceInfo, str]], now: float) -> list[str]:
    """Return a table of loaded models.

    Args:
        loaded: The instances, each with what it does.
        now: The time, in seconds since 1970.
    """
    rows = [
        (
            info.identifier,
            info.model_key,
            status.upper(),
            file_size(info.size_bytes),
            str(info.context_length),
            time_to_live(info, now),
        )
        for info, status in sorted(loaded, key=lambda each: each[0].identifier)
    ]
    return _lines(("IDENTIFIER", "MODEL", "STATUS", "SIZE", "CONTEXT", "TTL"), *rows)


def time_to_live(info: ModelInstanceInfo, now: float) -> str:
    """Return how long an idle model stays loaded, from now and in all; nothing if that has no end."""
    if info.ttl_ms is None:
        return ""
    idle_ms = 0 if info.last_used_time is None else now * 1000 - info.last_used_time
    remaining_ms = min(max(info.ttl_ms - idle_ms, 0), info.ttl_ms)  # the two clocks may differ
    return f"{duration(remaining_ms / 1000)} / {duration(info.ttl_ms / 1000)}"


def _loaded(count: int) -> str:
    if count == 0:
        return ""
    return "✓ LOADED" if count == 1 else f"✓ LOADED ({count})"


def _lines(*rows: Sequence[str]) -> list[str]:
    """Return rows as lines, with columns of the same width."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    cells = ((cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return ["  ".join(row) for row in cells]
