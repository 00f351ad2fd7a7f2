"""Each mistake shows the message of `messages.md` on every interface, and Troubleshooting quotes parts of those."""

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations._support import suggestions
from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.client.transport.connect import probe
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from tests.messages.mistakes import MISTAKES, Case, Trigger
from tests.messages.surfaces import SURFACES

MESSAGES = Path(__file__).with_name("messages.md").read_text(encoding="utf-8")
PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^## (?P<entry>[\w-]+)\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r"^### (?P<title>[^\n]+) \{ #(?P<entry>[\w-]+) \}$", re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

QUOTES = {found["entry"]: QUOTE.findall(found["body"]) for found in ENTRY.finditer(MESSAGES)}
ENTRIES_OF_MISTAKES = {entry for entry, _, _ in MISTAKES}
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


def messages_of(trigger: Trigger, case: Case) -> list[str]:
    """Return everything that a mistake shows: its error, its warnings, its log records."""
    records, logger = _Records(), logging.getLogger("lmstudio_integrations")
    logger.addHandler(records)
    shown: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trigger(case)
    except Exception as error:  # noqa: BLE001 - any error is what the user sees
        shown.append(str(error))
    finally:
        logger.removeHandler(records)
    return [*shown, *(str(each.message) for each in caught), *records.messages]


def pattern_of(quote: str) -> re.Pattern[str]:
    """Return a pattern for a quoted message: an ellipsis stands for any text, also of several lines.

    Line breaks are those of the message.
    """
    return re.compile(".+?".join(map(re.escape, plain(quote).split("…"))), re.DOTALL)


def plain(text: str) -> str:
    """Return a text without indentation, and with single spaces."""
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def test_each_entry_has_a_mistake_and_each_mistake_an_entry() -> None:
    assert QUOTES.keys() == ENTRIES_OF_MISTAKES
    assert all(QUOTES.values())


def test_what_the_page_quotes_is_in_a_message() -> None:
    assert len(TITLES) > 30
    for entry, title in TITLES.items():
        assert any(map(pattern_of(title).search, map(plain, QUOTES[entry]))), title


@pytest.mark.slow
@pytest.mark.parametrize("entry", QUOTES)
def test_each_interface_shows_the_message(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quotes = {quote: pattern_of(quote) for quote in QUOTES[entry]}
    seen: set[str] = set()
    for name, trigger in ((name, trigger) for of, names, trigger in MISTAKES if of == entry for name in names):
        IOThread.current().shared.clear()  # the next server may have the port of an earlier one
        with monkeypatch.context() as patch:
            shown = [*map(plain, messages_of(trigger, Case(SURFACES[name], patch)))]
        fitting = {quote for quote, pattern in quotes.items() if any(map(pattern.search, shown))}
        assert fitting, f"{trigger} on {name}: {shown}"
        seen |= fitting
    assert quotes.keys() == seen, "messages that nothing raises"


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
