"""Run pytest and print where its time went: by kind of test, by folder and by test, beside the speed of the machine.

    uv run --no-sync python -m tools.test_time -n auto --dist loadfile

CPU seconds compare between two runs on one machine. Between machines, compare them divided by the seconds of the loop.
What a process uses counts for the test in which it ends: for an engine, this may be a later one.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

RECORDS = "LMSTUDIO_INTEGRATIONS_TEST_TIME"
"""The variable with the directory in which each worker writes one line per phase of a test."""


class Usage(NamedTuple):
    """Seconds since the process started: of this process, of the processes that it has waited for, and of the clock."""

    own: float
    children: float
    wall: float

    @classmethod
    def now(cls) -> "Usage":
        """Return what this process has used so far."""
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime, time.perf_counter())


class _Recorder:
    def __init__(self, directory: str) -> None:
        self._file = (Path(directory) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8")

    def _write(self, test: str, phase: str, before: Usage) -> None:
        used = [round(now - then, 4) for now, then in zip(Usage.now(), before, strict=True)]
        print(json.dumps([test, phase, *used, _programs]), file=self._file, flush=True)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._write("", "imports and collection", Usage(0, 0, time.perf_counter()))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = Usage.now()
        _programs.clear()
        result = yield
        self._write(item.nodeid, "test", before)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        before = Usage.now()
        result = yield
        self._write(item.nodeid, "call", before)
        return result


_programs: list[str] = []
"""The commands that the running test has started."""


def _record_program(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        _programs.append(str(arguments[1]))


def pytest_configure(config: pytest.Config) -> None:
    """Record the tests of this process."""
    if directory := os.environ.get(RECORDS):
        sys.addaudithook(_record_program)
        config.pluginmanager.register(_Recorder(directory))


def machine_speed() -> float:
    """Return how many seconds ten million additions take."""
    start, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - start


Times = tuple[float, float, float]
"""CPU seconds of the process and of its children, and seconds of the clock."""


def _table(title: str, rows: dict[str, list[Times]], limit: int) -> None:
    print(f"\n{title:<72}{'tests':>7}{'CPU s':>8}{'in children':>13}{'wall s':>8}")
    sums = {name: [sum(column) for column in zip(*times, strict=True)] for name, times in rows.items()}
    for name, (own, children, wall) in sorted(sums.items(), key=lambda row: -row[1][0] - row[1][1])[:limit]:
        print(f"{name[-71:]:<72}{len(rows[name]):>7}{own + children:>8.1f}{children:>13.1f}{wall:>8.1f}")


def _kind(own: float, wall: float, programs: list[str]) -> str:
    if any("engines.llama_cpp" in program for program in programs):
        return "starts a process with a real engine"
    if programs:
        return "starts another process"
    return "waits" if wall > 0.3 and own < wall / 2 else "everything else"


def _summarize(lines: Iterable[str]) -> None:
    tables: dict[str, dict[str, list[Times]]] = {name: defaultdict(list) for name in ("kind", "folder", "file", "test")}
    calls: dict[str, Times] = {}
    for line in lines:
        test, phase, own, children, wall, programs = json.loads(line)
        if phase == "call":
            calls[test] = (own, children, wall)
            continue
        keys = {"kind": phase}
        if test:
            file = test.partition("::")[0]
            folder = "/".join(file.split("/")[:3])
            keys = {"kind": _kind(own, wall, programs), "folder": folder, "file": file, "test": test}
            call = calls.get(test, (0.0, 0.0, 0.0))
            tables["kind"]["  of which fixtures and pytest"].append((own - call[0], children - call[1], wall - call[2]))
        for name, key in keys.items():
            tables[name][key].append((own, children, wall))
    for name, rows in tables.items():
        _table(name, rows, limit=60)


def main() -> int:
    """Run pytest with the arguments of this program, and print the tables."""
    with tempfile.TemporaryDirectory() as directory:
        speed, start = machine_speed(), time.perf_counter()
        command = [sys.executable, "-m", "pytest", "-p", "tools.test_time", *sys.argv[1:]]
        code = subprocess.run(command, check=False, env=os.environ | {RECORDS: directory}).returncode
        wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        _summarize(line for path in Path(directory).glob("*.jsonl") for line in path.read_text("utf-8").splitlines())
    cpu = used.ru_utime + used.ru_stime
    print(f"\n{cpu:.0f} s of CPU in {wall:.0f} s on {os.cpu_count()} cores; ten million additions take {speed:.2f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
