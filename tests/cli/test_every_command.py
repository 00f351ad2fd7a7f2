"""What holds for every command: its help, its row on the page, and for those of a server, what they say without one."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_group

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli import _app
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cli.managed import COMMANDS, Piped, Run, of_commands
from tests.support.leaks import TOKEN, shows_token
from tools import ROOT

ARGUMENTS: dict[str, tuple[str, ...]] = of_commands(
    {
        "ls": (),
        "plan": ("some-model",),
        "doctor": (),
        "demo": (),
    }
)
"""How to run each command, to see what it says of a server that it cannot use."""

WRONG = "sk-lm-abcdefgh:9876543210jihgfedcba"
SEVERAL = "a:1234,b:1234"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator([ModelEntry(key="some-model")], tokens=[TOKEN]) as server:
        yield server


def test_the_table_has_every_command() -> None:
    assert set(COMMANDS) <= {*ARGUMENTS, "serve"}, "`serve` is a server"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_in_its_help_and_on_the_page_that_the_table_links(name: str) -> None:
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


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("host", ["ftp://nowhere", f"{TOKEN}@somewhere", "http://user:password@a"])
def test_an_invalid_address_is_one_line_that_shows_no_secret(name: str, host: str, piped: Piped) -> None:
    status, out, err = piped(name, *ARGUMENTS[name], "--host", host)
    assert (status, out, err[:7], err.count("\n")) == (2, "", "Error: ", 1)
    assert not shows_token(err)
    assert "user:password" not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_no_description_is_cut_in_the_help_of_a_narrow_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert run(name, "-h") == 0
    out = capsys.readouterr().out
    shown = one_line(out)
    group: Any = get_group(_app.app)
    params = group.get_command(None, name).params
    assert all(one_line(param.help) in shown for param in params if param.help)
    assert max(map(len, out.splitlines())) <= 50
    assert run("-h") == 0
    assert one_line(_app.COMMANDS[name]) in one_line(capsys.readouterr().out)
    assert one_line(_app.COMMANDS[name]) in shown, "its own help begins with the same sentence"


@pytest.mark.parametrize("name", ARGUMENTS)
def test_several_hosts_are_one_line_of_error(monkeypatch: pytest.MonkeyPatch, piped: Piped, name: str) -> None:
    problem = f"'{SEVERAL}' names several servers, and a client has one; name one of them as --host"
    assert piped(name, *ARGUMENTS[name], "--host", SEVERAL) == (2, "", f"Error: host {problem}\n")
    monkeypatch.setenv(HOST_VARIABLE, SEVERAL)
    assert piped(name, *ARGUMENTS[name]) == (2, "", f"Error: {HOST_VARIABLE} {problem}\n")


def test_a_command_that_was_deleted_is_not_listed_and_says_so_when_it_is_called(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(_app.COMMANDS, "gone", "Do what it did.")
    assert run("-h") == 0
    assert "Do what it did." not in capsys.readouterr().out
    assert run("gone") == (
        "Error: This copy of lmstudio_integrations is without the command 'gone': it has no module "
        "lmstudio_integrations.cli._gone."
    )
