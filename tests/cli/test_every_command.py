"""What holds for every command that uses a server: a dead host, a wrong token, its options, and what a pipe gets."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._app import app
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from tests.cli.managed import Piped
from tests.cli.terminal import needs_pty, on_terminal
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
RUNS = [pytest.param((name, *arguments), id=name) for name, arguments in ARGUMENTS.items()]


SEVERAL = "a:1234,b:1234"
SEVERAL_HOSTS = [
    pytest.param({}, ("--host", SEVERAL), "host", id="--host"),
    pytest.param({HOST_VARIABLE: SEVERAL}, (), HOST_VARIABLE, id=HOST_VARIABLE),
]
"""Ways to name several hosts, and how the error names them. `doctor` takes several."""


@pytest.fixture
def guarded() -> Iterator[Emulator]:
    """A server that wants a token."""
    with Emulator([parse_model(key, scripted=True) for key in BUNDLED], tokens=[TOKEN]) as server:
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
def test_a_command_has_the_flags_of_a_server(name: str) -> None:
    assert {"--host", "--token"} <= {flag for each in COMMANDS[name].params for flag in each.opts}


@pytest.mark.parametrize("command", RUNS)
def test_a_dead_host_is_one_error(command: tuple[str, ...], nobody: str, piped: Piped) -> None:
    status, out, err = piped(*command, "--host", nobody)
    assert status == 1
    assert nobody in err + out
    assert "\x1b" not in out + err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_description_is_cut_in_the_help_of_a_narrow_terminal(
    run: Callable[..., int | str | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
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


@pytest.mark.slow
@needs_pty
def test_no_line_is_broken_by_a_narrow_terminal(scripted: Emulator) -> None:
    with on_terminal("doctor", "--host", scripted.address, columns=50) as terminal:
        terminal.wait()
    lines = terminal.text.replace("\r", "").splitlines()
    assert max(len(line) for line in lines if len(line.split()) > 1) <= 50


@pytest.mark.parametrize(("variables", "flags", "source"), SEVERAL_HOSTS)
@pytest.mark.parametrize("name", sorted({*ARGUMENTS, "demo"} - {"doctor"}))
def test_several_hosts_are_one_line_of_error_where_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., int | str | None],
    name: str,
    variables: dict[str, str],
    flags: tuple[str, ...],
    source: str,
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "stdin", None)
    message = run(name, *ARGUMENTS.get(name, ()), *flags)
    assert isinstance(message, str), "the exit status is 1"
    problem = f"{source} 'a:1234,b:1234' names several servers, and a client has one"
    assert message == f"Error: {problem}; name one of them as --host"


@pytest.mark.parametrize("command", RUNS)
def test_a_wrong_token_is_one_error_that_does_not_show_it(
    command: tuple[str, ...], guarded: Emulator, piped: Piped
) -> None:
    status, out, err = piped(*command, "--host", guarded.address, "--token", WRONG)
    assert status == 1
    assert "token" in err + out
    assert WRONG not in err + out


@pytest.mark.slow
@needs_pty
def test_a_dead_host_ends_it_on_a_terminal_as_well(nobody: str) -> None:
    with on_terminal("ls", "--host", nobody) as terminal:
        assert terminal.wait() == 1
    assert nobody in terminal.text
    assert "Traceback" not in terminal.text
