"""Whatever names, texts and errors a server sends, they cannot control the terminal; pipes and JSON get them unchanged.

The names are those of models: client and server check the identifiers of instances.
"""

import contextlib
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lmstudio_integrations import ToolCallContext, ToolFunctionDef
from lmstudio_integrations._support.text import one_line, printable, printable_line
from lmstudio_integrations.cli._app import COMMANDS
from lmstudio_integrations.cli._terminal import protect_terminals
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioError
from tests.cli.managed import Piped
from tests.cli.terminal import needs_pty, on_terminal

TEXT = "\x1b]52;c;aGk=\x07\x1b[8m\x9d52;c;aGk=\x9c\x9b8m\x7f\u202e\u2066[red]a[/red] [link=http://a.b]c[/link] :smile:"
"""Writes the clipboard and hides what follows, with 7 and with 8 bits; reorders; is markup of rich."""

NAME = f"{TEXT}\rname\nError: fake"
CHAT, VECTORS, ABSENT = f"chat{NAME}", f"vectors{NAME}", f"absent{NAME}"
RULES: list[dict[str, Any]] = [
    {"when": {"last": "^fail"}, "then": [{"error": NAME}]},
    {"when": {"tools": ["report"], "role": "user"}, "then": [{"tool": "report", "arguments": {"text": TEXT}}]},
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
        is_busy: Whether others use the server meanwhile.
    """

    arguments: Sequence[str]
    shown: str = SHOWN_NAME
    typed: Sequence[tuple[str, str]] = ()
    is_busy: bool = False


READY = "(/? for help)"
"""The end of what a chat shows when it waits for a message. The prompt before it is printed again with each message."""

AS_JSON = printable_line(json.dumps(TEXT, ensure_ascii=False))

RUNS = {
    "ls": Run(["ls"]),
    "ps": Run(["ps"]),
    "top": Run(["top", "--prompts"], IN_AN_ERROR, [("last prompt", ""), (IN_AN_ERROR, "\x03")], is_busy=True),
    "logs": Run(["logs", "--prompts"], printable(TEXT), [(printable(TEXT), "\x03")], is_busy=True),
    "load": Run(["load", "--identifier", "new"], typed=[("Model [1]: ", "1\n")]),
    "unload": Run(["unload", "vectors"], "Unloaded vectors."),
    "plan": Run(["plan", "acme/odd"], IN_AN_ERROR),
    "certify": Run(["certify", CHAT, "--rows", "tools", "--quick"]),
    "get": Run(["get", "--always-show-all-results", "-a"], typed=[("Model [1]: ", "1\n")]),
    "get, not found": Run(["get", "absent@q9", "--yes"], IN_AN_ERROR),
    "doctor": Run(["doctor"]),
    "chat": Run(["chat"], printable(TEXT), [(READY, "hello\n"), (READY, "/model\n"), (READY, "\x04")]),
    "chat, an error": Run(["chat"], IN_AN_ERROR, [(READY, "fail\n"), (READY, "\x04")]),
    "chat, a call": Run(
        ["chat", "--tools", "mcp/texts"], AS_JSON, [(READY, "call\n"), ("[y/N/a]: ", "y\n"), (READY, "\x04")]
    ),
    "tools": Run(["tools", "mcp/texts"], IN_AN_ERROR),
    "tools, a call": Run(
        ["tools", "mcp/texts", "report", json.dumps({"text": TEXT})], f"Warning: report: {printable(TEXT)}"
    ),
    "embed": Run(["embed", "in.jsonl"], json.dumps(TEXT)),
    "embed, an error": Run(["embed", "fail.jsonl"], IN_AN_ERROR),
    "rerank": Run(["rerank", "query", "in.jsonl"], printable_line(TEXT)),
    "demo": Run(["demo"], printable(TEXT)),
    "record": Run(
        ["record", "--to", "new.lms.jsonl"], "0 requests in new.lms.jsonl.", [("Ctrl-C ends the recording.", "\x03")]
    ),
    "cassette": Run(["cassette", "show", "session.lms.jsonl"]),
    "serve": Run(["serve", "--port", "0", "--catalog", "catalog.toml"], typed=[("scripted)", "\x03")]),
}

JSON_RUNS = [
    ["ls", "--json"],
    ["ps", "--json"],
    ["top", "--once", "--json"],
    ["load", "new", "--identifier", "new", "--json"],
    ["plan", "acme/odd", "--json"],
    ["certify", CHAT, "--rows", "tools", "--quick", "--json"],
    ["doctor", "--json"],
    ["tools", "mcp/texts", "--json"],
]

PIPES = {
    "ls": (["ls"], CHAT),
    "ps": (["ps"], CHAT),
    "plan": (["plan", "acme/odd"], TEXT),
    "certify": (["certify", CHAT, "--rows", "tools", "--quick"], CHAT),
    "get": (["get", "absent", "--yes"], f"{ABSENT}\n"),
    "chat": (["chat", "-p", "hello"], f"{TEXT}\n"),
    "doctor": (["doctor"], CHAT),
    "tools": (["tools", "mcp/texts", "report", json.dumps({"text": TEXT})], f"{TEXT}\n"),
    "embed": (["embed", "in.jsonl"], json.dumps(TEXT, ensure_ascii=False)),
    "rerank": (["rerank", "query", "in.jsonl"], f"{TEXT}\n"),
    "demo": (["demo"], TEXT),
}


def report(text: str, ctx: ToolCallContext) -> str:
    """Report a text, and return it."""
    ctx.status(text)
    ctx.warn(text)
    return text


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with such names, texts and errors; its models are loaded."""
    models = [
        ModelEntry(key=CHAT, display_name=NAME, params=NAME, architecture=NAME, rules=tuple(RULES)),
        ModelEntry(
            key=VECTORS,
            kind="embedding",
            architecture=NAME,
            rules=({"when": {"last": "^fail"}, "then": [{"error": NAME}]},),
        ),
        ModelEntry(key=f"new{NAME}", path="acme/odd/odd.gguf"),
        ModelEntry(key=ABSENT, downloaded=False, size_bytes=1000, quantization=(NAME, 4)),
    ]
    tools: list[ToolFunctionDef | Callable[..., Any]] = [report, ToolFunctionDef(NAME, NAME, {}, lambda: None)]
    with Emulator(models, plugins={"mcp/texts": tools}) as running:
        running.load(CHAT, identifier="chatty")
        running.load(VECTORS, identifier="vectors")
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the input of `embed` and `rerank`, a recording, and a catalog for `serve`."""
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": TEXT}, ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "fail.jsonl").write_text('{"text": "fail"}\n', encoding="utf-8")
    (tmp_path / "session.lms.jsonl").write_text(
        '{"cassette":1}\n'
        + json.dumps({"event": "call", "id": 1, "at": 0, "namespace": "llm", "endpoint": NAME}, ensure_ascii=False),
        encoding="utf-8",
    )
    (tmp_path / "catalog.toml").write_text(f"[[model]]\nkey = {json.dumps(NAME)}\n", encoding="utf-8")
    return tmp_path


@contextlib.contextmanager
def use(server: Emulator) -> Iterator[None]:
    """Let another program use the language model until the end of the block, in vain every other time."""
    over = threading.Event()

    def ask() -> None:
        with Client(server.address) as client:
            model = client.llm.model("chatty")
            while not over.is_set():
                model.respond("hello")
                with pytest.raises(LMStudioError):
                    model.respond("fail")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def seen_on_terminal(run: Run, server: Emulator, folder: Path, **environment: str) -> str:
    """Run a command on a terminal; return what it printed, without its own control codes."""
    host = () if run.arguments[0] in {"serve", "cassette"} else ("--host", server.address)
    with (
        use(server) if run.is_busy else contextlib.nullcontext(),
        on_terminal(*run.arguments, *host, columns=WIDE, cwd=folder, **environment) as terminal,
    ):
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
