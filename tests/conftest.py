"""Fixtures that all tests share, and the tiers in which tests run: see CONTRIBUTING.md."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if missing := [each for each in ("hypothesis", "pytest_asyncio", "pytest_timeout", "xdist") if find_spec(each) is None]:
    sys.exit(
        f"The tests need packages that are not installed: {', '.join(missing)}. In the clone, run "
        '`uv sync --extra all --group test`, or `pip install -e ".[all]" --group test`.'
    )

from hypothesis import HealthCheck, settings

os.environ["LMSTUDIO_INTEGRATIONS_CHECK_THREADS"] = "1"  # before the package is imported

from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect import discovery, records
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.gate import Gate
from tests.support.tqdm_bars import drawn

__all__ = ["drawn"]

collect_ignore_glob = ["conformance/*", "neighbours"]
"""They need software of others, and have commands of their own."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs like this, and the programs that the tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without bytecode on disk, each worker and each program of a test would compile every module again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No test fails because a machine is slow, or by chance. New examples are searched with `--hypothesis-profile=default`.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("steady")

gc.disable()  # until the tests are collected
NOT_FAST = {"slow", "exhaustive", "live", "network", "ray"}
FIXED_WORK = 0.2
"""Seconds that `pytest_configure` needs for its sum on an idle machine."""

FAST_ROWS = 4
"""How many rows of a test the fast tier runs."""

started: list[str] = []
"""The functions that have started processes in the running test."""


def _record_calls(owner: Any, name: str) -> None:
    """Record the calls of a function that starts processes.

    An audit hook would let other threads run in the middle of `sys.settrace`, which Python 3.11 does not allow: of two
    threads that start at once while coverage is measured, one would fail.
    """
    function = getattr(owner, name)

    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        started.append(name)
        return function(*args, **kwargs)

    setattr(owner, name, recorded)


_record_calls(subprocess.Popen, "__init__")
for _name in {"fork", "posix_spawn", "posix_spawnp"} & vars(os).keys():  # as far as the system has them
    _record_calls(os, _name)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give a test longer to be called hung where the machine is slow or busy: no other clock ends one."""
    if config.getvalue("timeout") is None:
        began = time.perf_counter()
        sum(number & 1 for number in range(2_000_000))
        slowness = (time.perf_counter() - began) / FIXED_WORK
        config.option.timeout = float(config.getini("timeout")) * max(1.0, slowness)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what only the exhaustive tier runs, and what is fast. A test that is named is run with all its rows."""
    if config.getoption("from_cassette", None) is not None:
        on_server = [item for item in items if item.get_closest_marker("live") and "evidence" not in _parameters(item)]
        items[:] = [item for item in items if item not in on_server]
        config.hook.pytest_deselected(items=on_server)
    rows = defaultdict(list)
    for item in items:
        rows[item.nodeid.partition("[")[0]].append(item)
    named = any("::" in argument for argument in config.args)
    for name, of_one_test in rows.items():
        random.Random(name).shuffle(of_one_test)
        sampled = of_one_test[0].get_closest_marker("sampled")
        if sampled and not named:
            for item in of_one_test[sampled.args[0] :]:
                item.add_marker("exhaustive")
        fast = [item for item in of_one_test if NOT_FAST.isdisjoint(marker.name for marker in item.iter_markers())]
        for item in fast[: None if named else FAST_ROWS]:
            item.add_marker("fast")


def _parameters(item: pytest.Item) -> frozenset[str]:
    return frozenset(getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """Let no garbage collection look at what stays until the end: the modules and the tests."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` starts: more than cores, because each waits a third of its time."""
    return (os.cpu_count() or 1) * 3 // 2


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget what an earlier test has started."""
    started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a fast test fail that starts a process: it has no place in a developer's minute."""
    result = yield
    if started and item.get_closest_marker("fast"):
        pytest.fail("This test starts a process, so mark it: @pytest.mark.slow.")
    return result


CHAT_MODEL = "qwen2.5-7b-instruct"
EMBEDDING_MODEL = "text-embedding-nomic-embed-text-v1.5"


def scripted_models() -> list[ModelEntry]:
    """Return one model of each kind."""
    return [
        ModelEntry(key=CHAT_MODEL, vision=True),
        ModelEntry(key=EMBEDDING_MODEL, kind="embedding", embedding_length=768, max_context_length=2048),
    ]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server with one scripted model of each kind, none of them loaded."""
    with Emulator(scripted_models()) as server:
        yield server


@pytest.fixture
def gate() -> Gate:
    """What holds up a generation of a scripted model after its first words."""
    return Gate()


@pytest.fixture(autouse=True)
def _no_server_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find the LM Studio or the emulator that runs on the machine of a developer."""
    monkeypatch.setattr(records, "home", lambda: Path("/of-nobody/.lmstudio"))
    for ports in ("local_candidates", "public_candidates"):
        monkeypatch.setattr(discovery, ports, lambda: ())


@pytest.fixture(autouse=True)
def _forget_servers() -> Iterator[None]:
    """Forget evictions and context windows of each server: the next one may have the port of an earlier one."""
    yield
    windows: Any = sys.modules.get("lmstudio_integrations.llama_index._settings")
    if windows is not None:
        windows._context_windows.pop_all()
    thread = IOThread._current
    if thread is not None:
        thread.shared.clear()
