"""Recordings of the probe, question by question; and the same questions asked of an emulator."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lmstudio_integrations.cassettes.cassette import Interaction, read
from lmstudio_integrations.emulator import Emulator
from tests.live.standin import entry
from tools.probe.run import NO_PLUGIN, QUESTIONS, run_probe

ByQuestion = dict[str, list[Interaction]]
"""The requests of each question of a recording, by its name."""

BY_NAME = {question.name: question for question in QUESTIONS}


def by_question(interactions: Iterable[Interaction]) -> ByQuestion:
    """Return the requests of a recording question by question, without those of questions that are no longer asked."""
    questions = {name: list(group) for name, group in groupby(interactions, lambda each: each.section)}
    return {name: questions[name] for name in questions if name in BY_NAME}


def ask_emulator(recorded: Sequence[Interaction], to: Path) -> ByQuestion:
    """Ask an emulator with a model like the recorded one, and return what it does in the questions of the recording.

    Args:
        recorded: The recording; without requests, all questions are asked.
        to: The cassette to write.
    """
    model, plugin, sections = entry(recorded), _plugin(recorded), {each.section for each in recorded}
    questions = [
        question for question in QUESTIONS if question is QUESTIONS[0] or not sections or question.name in sections
    ]
    with Emulator([model], plugins=({plugin: [get_weather]} if plugin else {})) as server:
        run_probe(server.address, model.key, to, plugin=plugin or NO_PLUGIN, questions=questions)
    return by_question(read(to))


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
