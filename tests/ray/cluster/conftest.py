"""A local Ray, and hosts: emulators in processes of their own. Only here is Ray imported."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
LIMIT = 600.0
"""Seconds after which a condition that must come true counts as false."""


class Host:
    """A running emulator. See `host.py` for the settings."""

    def __init__(self, **settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("host.py")), json.dumps({"tokens": [TOKEN], **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._read()

    def state(self, command: str = "state") -> dict[str, Any]:
        """Return what it has counted."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        state: dict[str, Any] = json.loads(self._read())
        return state

    def open(self) -> None:
        """Let pass what waits at its gate, now and later."""
        self.state("open")

    def freeze(self) -> None:
        """Stop its process: its sockets stay open, and nothing happens on them."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it: it closes nothing."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def running_hosts() -> Generator[Callable[..., Host]]:
    """Provide what starts a host; all of them are gone after the block."""
    started: list[Host] = []

    def start(**settings: Any) -> Host:
        started.append(Host(**settings))
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            each.kill()


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    """Return what starts a host."""
    with running_hosts() as start:
        yield start


@pytest.fixture(scope="session")
def local_host() -> Iterator[Host]:
    """The LM Studio of the one node that Ray has here."""
    host = Host()
    yield host
    host.kill()


@pytest.fixture(scope="session")
def ray(local_host: Host) -> Iterator[ModuleType]:
    """Return Ray, started. Its workers find the token and the LM Studio of their node in their environment."""
    import ray

    os.environ |= {"LM_API_TOKEN": TOKEN, "LMSTUDIO_HOST": local_host.address}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Return what waits for a condition and returns its value."""

    def wait(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + LIMIT
        while not (value := condition()):
            assert time.monotonic() < end, "the condition did not come true"
            time.sleep(0.05)
        return value

    return wait
