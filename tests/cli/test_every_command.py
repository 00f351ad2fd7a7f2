"""What holds for every command that uses a server: a dead host, a wrong token, its options, and what a pipe gets."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._app import app
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import OnScreen, Piped, Run
from tools import ROOT

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "ls": (),
    "plan": ("some-model",),
    "certify": ("some-model", "--quick"),
    "doctor": (),
    "record": ("--to", "never-written.lms.jsonl"),
}
"""How to run each command, to see what it says of a server that it cannot use."""

ON_ITS_OWN = {"serve", "demo"}
"""`serve` is a server; `demo` starts one where there is none."""

TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"
WRONG = "sk-lm-abcdefgh:9876543210jihgfedcba"
COMMANDS = typer.main.get_group(app).commands
SEVERAL = "a:1234,b:1234"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator([ModelEntry(key="some-model")], tokens=[TOKEN]) as server:
        yield server


def test_the_table_has_every_command() -> None:
    assert ARGUMENTS.keys() | ON_ITS_OWN == COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_says_what_it_does_in_its_help_and_on_the_page_that_the_table_links(name: str) -> None:
    assert COMMANDS[name].short_help
    page = ROOT / "docs/tools/cli.md"
    (link,) = re.findall(rf"^\| \[`{name}`\]\((.*?)(?:#.*)?\) \| \w", page.read_text(encoding="utf-8"), re.MULTILINE)
    described = page.parent / link if link else page
    assert f"lmsi {name}" in described.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_server_that_cannot_be_used_is_one_error_that_shows_no_token(
    name: str, nobody: str, guarded: Emulator, piped: Piped
) -> None:
    for flags, shown in (("--host", nobody), nobody), (("--host", guarded.address, "--token", WRONG), "token"):
        status, out, err = piped(name, *ARGUMENTS[name], *flags)
        assert (status, shown in err + out, "\x1b" in out + err, WRONG in out + err) == (1, True, False, False)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_description_is_cut_in_the_help_of_a_narrow_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert run(name, "-h") == 0
    out = capsys.readouterr().out
    shown = one_line(out)
    params: list[Any] = COMMANDS[name].params
    assert all(one_line(param.help) in shown for param in params if param.help)
    assert max(map(len, out.splitlines())) <= 50
    assert run("-h") == 0
    assert one_line(COMMANDS[name].short_help) in one_line(capsys.readouterr().out)


def test_no_line_is_broken_by_a_narrow_terminal(scripted: Emulator, on_screen: OnScreen) -> None:
    printed = on_screen("doctor", "--host", scripted.address, columns=50)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    assert [line for line in lines if len(line) > 50 and len(line.split()) > 1] == []


@pytest.mark.parametrize("name", sorted({*ARGUMENTS, "demo"} - {"doctor"}))
def test_several_hosts_are_one_line_of_error_where_one_is_used(
    monkeypatch: pytest.MonkeyPatch, piped: Piped, name: str
) -> None:
    problem = f"'{SEVERAL}' names several servers, and a client has one; name one of them as --host"
    assert piped(name, *ARGUMENTS.get(name, ()), "--host", SEVERAL) == (2, "", f"Error: host {problem}\n")
    monkeypatch.setenv(HOST_VARIABLE, SEVERAL)
    assert piped(name, *ARGUMENTS.get(name, ())) == (2, "", f"Error: {HOST_VARIABLE} {problem}\n")
