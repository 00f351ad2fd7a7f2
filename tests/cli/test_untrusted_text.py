"""Whatever names, texts and errors a server sends, they cannot control the terminal; pipes and JSON get them unchanged.

Neither can numbers that are none end a command with a traceback.

The names are those of models: client and server check the identifiers of instances.
"""

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from lmstudio_integrations._support.text import one_line, printable, printable_line
from lmstudio_integrations.cli._common import print_json
from lmstudio_integrations.cli._formatting import protect_terminals
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.server.connection_handler import ConnectionHandler
from tests.cli.conftest import Screen
from tests.cli.managed import COMMANDS, OnScreen, Piped, of_commands
from tests.test_text import ESCAPED

TEXT = "\x1b]52;c;aGk=\x07\x1b[8m\x9d52;c;aGk=\x9c\x9b8m\x7f\u202e\u2066[red]a[/red] [link=http://a.b]c[/link] :smile:"
"""Writes the clipboard and hides what follows, with 7 and with 8 bits; reorders; is markup of rich."""

NAME = f"{TEXT}\rname\nError: fake"
CHAT, VECTORS = f"chat{NAME}", f"vectors{NAME}"
RULES: tuple[dict[str, Any], ...] = (
    {"when": {"tools": ["get_weather"]}, "then": [{"tool": "get_weather", "arguments": {"city": TEXT}}]},
    {"when": {"structured": True}, "then": [{"text": json.dumps({"city": TEXT})}]},
    {"then": [{"reasoning": TEXT}, *({"text": character} for character in TEXT)]},
)

SHOWN_NAME = printable_line(NAME)
IN_AN_ERROR = printable_line(one_line(NAME))

OWN_CODES = re.compile(r"\x1b\[(\?(1|7|12|25|1049|2004)[hl]|[0-9]*[A-DHJK]|(?!8m)[0-9;]*m)|[\r\b]")
"""What the command line itself writes: colors, movements of the cursor, and the setup of an input line."""

HIDDEN = re.compile(r"[^\n\x20-\x7e\u00a0-\u1fff\u2030-\u2060\u2070-\U0001ffff]")


class Shown(NamedTuple):
    """A command, what a terminal must show, after which of its texts Ctrl-C is pressed, and what a pipe gets."""

    arguments: Sequence[str]
    shown: str = SHOWN_NAME
    ctrl_c_after: str | None = None
    in_a_pipe: str | None = CHAT


RUNS = of_commands(
    {
        "ls": Shown(["ls"]),
        "plan": Shown(["plan", "acme/odd"], IN_AN_ERROR, in_a_pipe=TEXT),
        "doctor": Shown(["doctor"]),
        "demo": Shown(["demo"], printable(TEXT), in_a_pipe=TEXT),
        "serve": Shown(
            ["serve", "--port", "0", "--catalog", "catalog.toml"], SHOWN_NAME, "Ctrl-C stops the server.", None
        ),
    }
)
WITH_JSON = of_commands(dict.fromkeys(["ls", "plan", "doctor"]))


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server with such names, texts and errors; its models are loaded."""
    models = [
        ModelEntry(key=CHAT, display_name=NAME, params=NAME, architecture=NAME, rules=RULES),
        ModelEntry(key=VECTORS, kind="embedding", architecture=NAME),
        ModelEntry(key=f"new{NAME}", path="acme/odd/odd.gguf"),
    ]
    with Emulator(models) as running:
        running.load(CHAT, identifier="chatty")
        running.load(VECTORS, identifier="vectors")
        yield running


@pytest.fixture
def arguments_of(server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return the arguments of a command, in a folder with a catalog for `serve`."""
    (tmp_path / "catalog.toml").write_text(f"[[model]]\nkey = {json.dumps(NAME)}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda name: [*RUNS[name].arguments, *(() if name == "serve" else ("--host", server.address))]


def test_the_table_has_every_command() -> None:
    assert RUNS.keys() == set(COMMANDS)


@pytest.mark.parametrize("name", RUNS)
def test_a_terminal_shows_a_text_and_does_not_obey_it(
    name: str, arguments_of: Callable[[str], list[str]], on_screen: OnScreen
) -> None:
    printed = on_screen(*arguments_of(name), ctrl_c_after=RUNS[name].ctrl_c_after)
    seen = OWN_CODES.sub("", printed)
    assert RUNS[name].shown in seen
    assert not HIDDEN.findall(seen)
    assert "\nError: fake" not in seen, "a name is a part of a line"


@pytest.mark.parametrize("name", of_commands(dict.fromkeys(["ls", "demo"])))
def test_a_terminal_without_colors_and_bars_is_still_one(
    name: str, arguments_of: Callable[[str], list[str]], on_screen: OnScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.setenv("NO_COLOR", "1")
    seen = OWN_CODES.sub("", on_screen(*arguments_of(name)))
    assert RUNS[name].shown in seen
    assert not HIDDEN.findall(seen)


@pytest.mark.parametrize("name", WITH_JSON)
def test_json_is_escaped_and_has_the_same_value(
    name: str, arguments_of: Callable[[str], list[str]], piped: Piped
) -> None:
    _, text, _ = piped(*arguments_of(name), "--json")
    document = text[text.index(next(line for line in text.splitlines() if line[0] in "[{")) :]
    assert not HIDDEN.findall(document)
    assert json.dumps(NAME)[1:-1] in json.dumps(json.loads(document))


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.in_a_pipe])
def test_a_pipe_gets_a_text_unchanged(name: str, arguments_of: Callable[[str], list[str]], piped: Piped) -> None:
    _, out, err = piped(*arguments_of(name))
    assert str(RUNS[name].in_a_pipe) in out, err


ABSURD = {"digits": 10**400, "negative": -(10**400), "infinite": 1e999}
NUMBERS = (
    "sizeBytes",
    "maxContextLength",
    "contextLength",
    "ttlMs",
    "lastUsedTime",
    "totalBytes",
    "totalMemory",
    "bits",
)


class AbsurdConnection(ConnectionHandler):
    """A connection on which one number of each result is absurd."""

    absurd: ClassVar[dict[str, float]] = {}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        reply = self.session.reply
        self.session.reply = lambda call_id, result=None: reply(call_id, self._changed(result))  # type: ignore[method-assign]

    def _changed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.absurd.get(key, self._changed(member)) for key, member in value.items()}
        return [self._changed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("number", ABSURD.values(), ids=ABSURD)
@pytest.mark.parametrize("name", WITH_JSON)
def test_an_absurd_number_ends_no_command(
    name: str, number: float, piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Emulator, "_serve_connection", lambda _self, *arguments: AbsurdConnection(*arguments))
    with Emulator([ModelEntry(key="chat"), ModelEntry(key="vectors", kind="embedding")]) as server:
        server.load("chat", ttl=60)
        arguments = ["plan", "vectors"] if name == "plan" else [name]
        for member in NUMBERS:
            monkeypatch.setattr(AbsurdConnection, "absurd", {member: number})
            status, out, err = piped(*arguments, "--host", server.address)
            assert status == 0 or "cannot be read: " in out + err, (member, out + err)


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
    terminal = Screen(None)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    protect_terminals()
    write()
    assert printable(TEXT) in terminal.getvalue()
    assert not HIDDEN.findall(terminal.getvalue())


def test_a_process_without_streams_needs_no_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    protect_terminals()
    assert sys.stdout is sys.stderr is None


@pytest.mark.parametrize(("chosen", "written"), [("", "✓ é".encode()), ("cp1252", "? é".encode("cp1252"))])
def test_pipes_of_windows_get_utf_8_unless_the_user_chose_an_encoding(
    monkeypatch: pytest.MonkeyPatch, chosen: str, written: bytes
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("PYTHONIOENCODING", chosen)
    if not chosen:
        monkeypatch.delenv("PYTHONIOENCODING")
    output = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(output, encoding="cp1252", errors="replace"))
    protect_terminals()
    sys.stdout.write("✓ é")
    sys.stdout.flush()
    assert output.getvalue() == written


@pytest.mark.parametrize("character", ESCAPED, ids=ascii)
def test_json_has_its_own_escapes_of_what_controls_a_terminal(
    character: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(f"a{character}b")
    document = capsys.readouterr().out
    assert json.loads(document) == f"a{character}b"
    assert character not in document
