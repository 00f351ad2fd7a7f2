"""Recordings of the probe, row by row; and the same rows asked of an emulator."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lmstudio_integrations.cli._probe.rows import ROWS
from lmstudio_integrations.cli._probe.run import NO_PLUGIN, run_probe
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.cassettes.cassette import Interaction, read
from tests.live.standin import entry

Rows = dict[str, list[Interaction]]
"""The requests of each row of a recording, by its name."""

BY_NAME = {row.name: row for row in ROWS}


def by_row(interactions: Iterable[Interaction]) -> Rows:
    """Return the requests of a recording row by row, without those of rows that are no longer asked."""
    rows = {name: list(group) for name, group in groupby(interactions, lambda each: each.section)}
    return {name: rows[name] for name in rows if name in BY_NAME}


def ask_emulator(recorded: Sequence[Interaction], to: Path) -> Rows:
    """Ask an emulator with a model like the recorded one, and return what it does in the rows of the recording.

    Args:
        recorded: The recording; without requests, all rows are asked.
        to: The cassette to write.
    """
    model, plugin, sections = entry(recorded), _plugin(recorded), {each.section for each in recorded}
    rows = [row for row in ROWS if row is ROWS[0] or not sections or row.name in sections]
    with Emulator([model], plugins=({plugin: [get_weather]} if plugin else {})) as server:
        run_probe(server.address, model.key, to, plugin=plugin or NO_PLUGIN, rows=rows)
    return by_row(read(to))


def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"rain in {city}"


def _plugin(recorded: Sequence[Interaction]) -> str | None:
    """Return the plugin whose tools the server has listed, if the user has named one."""
    for each in recorded:
        if each.endpoint == "startToolUseSession" and any(
            packet["type"] == "sessionReady" for packet in each.packets()
        ):
            return str(each.parameter["pluginIdentifier"])
    return None
