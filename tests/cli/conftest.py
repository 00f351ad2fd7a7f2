"""What the tests of the command line share: a server with the bundled keys, and running a command."""

import socket
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.cli import main
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from tests.cli.managed import Command, Piped, managed_server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the developer's machine says of servers, and take a wide terminal."""
    for name in (HOST_VARIABLE, *TOKEN_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def scripted() -> Iterator[Emulator]:
    """A server that has scripted models under the keys of the bundled ones."""
    with Emulator([parse_model(key, scripted=True) for key in BUNDLED]) as server:
        yield server


@pytest.fixture
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Run a command in this process; the result is what the process would exit with."""

    def run_command(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["lmsi", *arguments])
        with pytest.raises(SystemExit) as remaining:
            main()
        return remaining.value.code

    return run_command


@pytest.fixture
def piped(
    run: Callable[..., int | str | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Piped:
    """Run a command in this process with pipes as its streams."""

    def run_piped(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode()), "utf-8"))
        status = run(*arguments)
        out, err = capsys.readouterr()
        return (1, out, f"{err}{status}\n") if isinstance(status, str) else (status or 0, out, err)

    return run_piped


@pytest.fixture
def managed() -> Iterator[Emulator]:
    """A server with models to list, load and unload."""
    with managed_server() as server:
        yield server


@pytest.fixture
def command(managed: Emulator, run: Callable[..., int | str | None], capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command on the managed server."""

    def run_it(*arguments: str) -> tuple[int | str | None, str, str]:
        status = run(*arguments, "--host", managed.address)
        return status, *capsys.readouterr()

    return run_it
