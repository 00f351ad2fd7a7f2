"""`record` writes what passes, and `serve --replay` responds with it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cli import INTERRUPTED, _record
from lmstudio_integrations.emulator import Emulator, use_cassette
from tests.cli.managed import Run
from tests.cli.terminal import started

CHAT = "chat"


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator([CHAT]) as running:
        yield running


def say(address: str, *texts: str) -> list[str]:
    with lms.Client(address) as client:
        model = client.llm.model(CHAT)
        return [model.respond(text).content for text in texts]


def address_of(process: "subprocess.Popen[str]") -> str:
    """Return the address on the first line of the output."""
    assert process.stdout is not None
    found = re.fullmatch(r"ws://(.*)\n", process.stdout.readline())
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")
@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
def test_what_is_recorded_is_served_again(server: Emulator, tmp_path: Path, end: signal.Signals) -> None:
    path = tmp_path / "session.lms.jsonl"
    with started("record", "--to", str(path), "--host", server.address) as process:
        said = say(address_of(process), "Hi", "It is sk-hunter2")
        process.send_signal(end)
        _, notes = process.communicate(timeout=600)
    assert process.returncode == INTERRUPTED
    assert notes.startswith("Prompts and responses of every program that connects are written to")
    assert notes.endswith(f"3 requests in {path}.\n")
    assert "hunter2" not in path.read_text(encoding="utf-8")
    with started("serve", "--replay", str(path), "--port", "0") as process:
        again = say(address_of(process), "Hi", "It is sk-hunter2")
    assert again == [said[0], said[1].replace("sk-hunter2", "**********")]


def test_models_beside_a_cassette_and_a_cassette_that_exists_are_errors(
    server: Emulator, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.lms.jsonl"
    with use_cassette(path, "rewrite", server=server.address) as recording:
        say(recording.address, "Hi")
    assert "exists; delete it, or choose another name" in str(
        run("record", "--to", str(path), "--host", server.address)
    )
    problem = f"{run('serve', '--replay', str(path), '--model', 'm')}{capsys.readouterr().err}"
    assert "omit --model, --load, --catalog" in problem


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_wherever_it_arrives(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(_record, "_TURN", 0.001)
    before = sys.gettrace()
    for at in range(1, 40):
        lines = count(1)

        def trace(_frame: FrameType, event: str, _argument: Any, at: int = at, lines: Iterator[int] = lines) -> Any:
            if event == "line" and next(lines) == at:
                signal.raise_signal(number)
            return trace

        with _record.interruption() as wait:
            sys.settrace(trace)
            try:
                wait()
            finally:
                sys.settrace(before)
