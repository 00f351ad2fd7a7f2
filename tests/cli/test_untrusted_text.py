"""Whatever names, texts and errors a server sends, they cannot control the terminal; pipes and JSON get them unchanged.

The names are those of models: client and server check the identifiers of instances.
"""

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lmstudio_integrations._support.text import one_line, printable, printable_line
from lmstudio_integrations.cli._app import COMMANDS
from lmstudio_integrations.cli._formatting import protect_terminals
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import Piped
from tests.cli.terminal import needs_pty, on_terminal

TEXT = "\x1b]52;c;aGk=\x07\x1b[8m\x9d52;c;aGk=\x9c\x9b8m\x7f\u202e\u2066[red]a[/red] [link=http://a.b]c[/link] :smile:"
"""Writes the clipboard and hides what follows, with 7 and with 8 bits; reorders; is markup of rich."""

NAME = f"{TEXT}\rname\nError: fake"
CHAT, VECTORS = f"chat{NAME}", f"vectors{NAME}"
RULES: list[dict[str, Any]] = [
    {"when": {"tools": ["get_weather"]}, "then": [{"tool": "get_weather", "arguments": {"city": TEXT}}]},
    {"when": {"structured": True}, "then": [{"text": json.dumps({"city": TEXT})}]},
    {"then": [{"reasoning": TEXT}, *({"text": character} for character in TEXT)]},
]

SHOWN_NAME = printable_line(NAME)
IN_AN_ERROR = printable_line(one_line(NAME))

OWN_CODES = re.compile(r"\x1b\[(\?(1|7|12|25|1049|2004)[hl]|[0-9]*[A-DHJK]|(?!8m)[0-9;]*m)|[\r\b]")
"""What the command line itself writes: colors, movements of the cursor, and the setup of an input line."""

HIDDEN = re.compile(r"[^\n\x20-\x7e\u00a0-\u1fff\u2030-\u2060\u2070-\U0001ffff]")

WIDE = 1000
"""Columns, so that no line is wrapped."""


class Run(NamedTuple):
    """A command on a terminal.

    Attributes:
        arguments: The command.
        shown: A text that must appear.
        typed: What is typed, each after a text that is awaited.
    """

    arguments: Sequence[str]
    shown: str = SHOWN_NAME
    typed: Sequence[tuple[str, str]] = ()


RUNS = {
    "ls": Run(["ls"]),
    "plan": Run(["plan", "acme/odd"], IN_AN_ERROR),
    "certify": Run(["certify", CHAT, "--rows", "tools", "--quick"]),
    "doctor": Run(["doctor"]),
    "demo": Run(["demo"], printable(TEXT)),
    "record": Run(
        ["record", "--to", "new.lms.jsonl"], "0 requests in new.lms.jsonl.", [("Ctrl-C ends the recording.", "\x03")]
    ),
    "serve": Run(["serve", "--port", "0", "--catalog", "catalog.toml"], typed=[("scripted)", "\x03")]),
}

JSON_RUNS = [
    ["ls", "--json"],
    ["plan", "acme/odd", "--json"],
    ["certify", CHAT, "--rows", "tools", "--quick", "--json"],
    ["doctor", "--json"],
]

PIPES = {
    "ls": (["ls"], CHAT),
    "plan": (["plan", "acme/odd"], TEXT),
    "certify": (["certify", CHAT, "--rows", "tools", "--quick"], CHAT),
    "doctor": (["doctor"], CHAT),
    "demo": (["demo"], TEXT),
}


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with such names, texts and errors; its models are loaded."""
    models = [
        ModelEntry(key=CHAT, display_name=NAME, params=NAME, architecture=NAME, rules=tuple(RULES)),
        ModelEntry(key=VECTORS, kind="embedding", architecture=NAME),
        ModelEntry(key=f"new{NAME}", path="acme/odd/odd.gguf"),
    ]
    with Emulator(models) as running:
        running.load(CHAT, identifier="chatty")
        running.load(VECTORS, identifier="vectors")
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a catalog for `serve`."""
    (tmp_path / "catalog.toml").write_text(f"[[model]]\nkey = {json.dumps(NAME)}\n", encoding="utf-8")
    return tmp_path


def seen_on_terminal(run: Run, server: Emulator, folder: Path, **environment: str) -> str:
    """Run a command on a terminal; return what it printed, without its own control codes."""
    host = () if run.arguments[0] == "serve" else ("--host", server.address)
    with on_terminal(*run.arguments, *host, columns=WIDE, cwd=folder, **environment) as terminal:
        for awaited, typed in run.typed:
            terminal.wait_for(awaited)
            terminal.type(typed)
        terminal.wait()
    return OWN_CODES.sub("", terminal.raw)


def test_the_table_has_every_command() -> None:
    assert {run.arguments[0] for run in RUNS.values()} == set(COMMANDS)


@pytest.mark.sampled(6)
@pytest.mark.slow
@needs_pty
@pytest.mark.parametrize("name", RUNS)
def test_a_terminal_shows_a_text_and_does_not_obey_it(name: str, server: Emulator, folder: Path) -> None:
    seen = seen_on_terminal(RUNS[name], server, folder)
    assert RUNS[name].shown in seen
    assert not HIDDEN.findall(seen)
    assert "\nError: fake" not in seen, "a name is a part of a line"


@pytest.mark.slow
@needs_pty
@pytest.mark.parametrize("name", ["ls", "demo"])
def test_a_terminal_without_colors_and_bars_is_still_one(name: str, server: Emulator, folder: Path) -> None:
    seen = seen_on_terminal(RUNS[name], server, folder, TTY_COMPATIBLE="0", NO_COLOR="1")
    assert RUNS[name].shown in seen
    assert not HIDDEN.findall(seen)


@pytest.mark.parametrize("arguments", JSON_RUNS, ids=" ".join)
def test_json_is_escaped_and_has_the_same_value(arguments: list[str], server: Emulator, piped: Piped) -> None:
    _, text, _ = piped(*arguments, "--host", server.address)
    document = text[text.index(next(line for line in text.splitlines() if line[0] in "[{")) :]
    assert not HIDDEN.findall(document)
    assert json.dumps(NAME)[1:-1] in json.dumps(json.loads(document))


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_gets_a_text_unchanged(
    name: str, server: Emulator, folder: Path, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, expected = PIPES[name]
    monkeypatch.chdir(folder)
    _, out, err = piped(*arguments, "--host", server.address)
    assert expected in out, err


class ShownText(StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def log() -> None:
    assert logging.lastResort
    logging.lastResort.emit(logging.makeLogRecord({"msg": TEXT}))


def warn() -> None:
    print(warnings.formatwarning(TEXT, UserWarning, "file", 1), file=sys.stderr)


def fail() -> None:
    sys.excepthook(ValueError, ValueError(TEXT), None)


def write_lines() -> None:
    sys.stdout.writelines([TEXT, "\n"])


@pytest.mark.parametrize("write", [log, warn, fail, write_lines])
def test_logs_warnings_and_tracebacks_are_escaped_as_well(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]
) -> None:
    terminal = ShownText()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    protect_terminals()
    write()
    assert printable(TEXT) in terminal.getvalue()
    assert not HIDDEN.findall(terminal.getvalue())


def test_a_process_without_streams_needs_no_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    protect_terminals()
    assert sys.stdout is sys.stderr is None


@pytest.mark.parametrize(("chosen", "written"), [(None, "✓ é".encode()), ("cp1252", "? é".encode("cp1252"))])
def test_pipes_of_windows_get_utf_8_unless_the_user_chose_an_encoding(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, written: bytes
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    if chosen is None:
        monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    else:
        monkeypatch.setenv("PYTHONIOENCODING", chosen)
    output = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding="cp1252", errors="replace"))
    protect_terminals()
    sys.stdout.write("✓ é")
    sys.stdout.flush()
    assert output.getvalue() == written
