"""Each mistake names its value and its remedy on every interface, and Troubleshooting quotes what the user reads."""

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support import suggestions
from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect import probe
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from tests.messages.mistakes import LOGGED, MISTAKES, Case, Trigger
from tests.messages.surfaces import SURFACES

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TITLE = re.compile(r"^### (?P<title>[^\n]+) \{ #(?P<entry>[\w-]+) \}$", re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

TITLES = {found["entry"]: found["title"] for found in TITLE.finditer(PAGE)}
PROGRAMS = PROGRAM.findall(PAGE)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process be on a machine without LM Studio, and in no container."""
    for name in (HOST_VARIABLE, *TOKEN_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(suggestions, "IN_CONTAINER", False)
    monkeypatch.setattr(probe, "PROBE_TIMEOUT", 600.0)


class _Records(logging.Handler):
    """Collects the messages of a logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def messages_of(trigger: Trigger, case: Case) -> list[tuple[type[Any], str]]:
    """Return everything that a mistake shows, each with its class: its error, its warnings, its log records."""
    records, logger = _Records(), logging.getLogger("lmstudio_integrations")
    logger.addHandler(records)
    shown: list[tuple[type[Any], str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trigger(case)
        except Exception as error:  # noqa: BLE001 - any error is what the user sees
            shown.append((type(error), str(error)))
        finally:
            logger.removeHandler(records)
    return [
        *shown,
        *((each.category, str(each.message)) for each in caught),
        *((LOGGED, each) for each in records.messages),
    ]


def test_each_message_on_the_page_is_of_a_mistake() -> None:
    assert len(TITLES) > 30
    assert TITLES.keys() <= MISTAKES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("entry", MISTAKES)
def test_each_interface_names_the_value_and_the_remedy(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, *rows = MISTAKES[entry]
    title = re.compile(".+".join(map(re.escape, TITLES.get(entry, "").split("…"))))
    quoted = False
    for names, trigger, words in rows:
        for name in names:
            IOThread.current().shared.clear()  # the next server may have the port of an earlier one
            with monkeypatch.context() as patch:
                shown = messages_of(trigger, Case(SURFACES[name], patch))
            fitting = [text for kind, text in shown if issubclass(kind, expected)]
            assert any(all(each in text for each in words.split(" … ")) for text in fitting), (
                f"{words} on {name}: {shown}"
            )
            quoted = quoted or any(title.search(text) for _, text in shown)
    assert quoted, "what the page quotes is in no message"


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with scripted models under the keys of the bundled ones."""
    with Emulator([parse_model(key, scripted=True) for key in BUNDLED]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.splitlines()[-1][:40] for program in PROGRAMS])
def test_a_program_on_the_page_runs(program: str, bundled: Emulator) -> None:
    exec(compile(program, "troubleshooting", "exec"), {"__name__": "troubleshooting"})
    assert bundled.address
