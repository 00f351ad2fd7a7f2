"""What the tests of the command line share: servers, and running a command in this process."""

import signal
import socket
import sys
from collections.abc import Iterator
from io import BytesIO, StringIO, TextIOWrapper

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations.cli._main import main
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from tests.cli.managed import OnScreen, Piped, Run, managed_server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the developer's machine says of servers, and take a wide terminal."""
    for name in (HOST_VARIABLE, *TOKEN_VARIABLES, "NO_COLOR"):
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
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; the result is what the process would exit with."""

    def run_command(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["lmsi", *arguments])
        with pytest.raises(SystemExit) as remaining:
            main()
        return remaining.value.code

    return run_command


@pytest.fixture
def piped(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Piped:
    """Run a command in this process with pipes as its streams."""

    def run_piped(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(), "utf-8"))
        status = run(*arguments)
        out, err = capsys.readouterr()
        return (1, out, f"{err}{status}\n") if isinstance(status, str) else (status or 0, out, err)

    return run_piped


class Screen(StringIO):
    """What a terminal would get; its user presses Ctrl-C when a text appears."""

    def __init__(self, ctrl_c_after: str | None) -> None:
        super().__init__()
        self._ctrl_c_after = ctrl_c_after

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._ctrl_c_after and self._ctrl_c_after in text:
            signal.raise_signal(signal.SIGINT)
        return written


@pytest.fixture
def on_screen(run: Run, monkeypatch: pytest.MonkeyPatch) -> OnScreen:
    """Run a command in this process on a terminal, by default one so wide that no line is wrapped."""

    def run_on_screen(*arguments: str, columns: int = 1000, ctrl_c_after: str | None = None) -> str:
        screen = Screen(ctrl_c_after)
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm-256color")
            patch.setattr(sys, "stdout", screen)
            patch.setattr(sys, "stderr", screen)
            status = run(*arguments)
            if isinstance(status, str):
                print(status, file=sys.stderr)
        return screen.getvalue()

    return run_on_screen


@pytest.fixture
def managed() -> Iterator[Emulator]:
    """A server with models to list, load and unload."""
    with managed_server() as server:
        yield server


@pytest.fixture
def command(managed: Emulator, piped: Piped) -> Piped:
    """Run a command on the managed server."""
    return lambda *arguments: piped(*arguments, "--host", managed.address)
