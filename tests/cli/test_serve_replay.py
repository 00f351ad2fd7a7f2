"""`serve --replay` responds with what was recorded."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes import use_cassette
from lmstudio_integrations.emulator import Emulator
from tests.cli.managed import Piped
from tests.cli.terminal import started

pytestmark = pytest.mark.leaf("cassettes", "command_line", "serve")

CHAT = "chat"


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
def test_what_is_recorded_is_served_to_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "session.lms.jsonl"
    with Emulator([CHAT]) as server, use_cassette(path, "once", server=server.address) as recording:
        said = say(recording.address, "Hi", "It is sk-hunter2")
    assert "hunter2" not in path.read_text(encoding="utf-8")
    with started("serve", "--replay", str(path), "--port", "0") as process:
        again = say(address_of(process), "Hi", "It is sk-hunter2")
    assert again == [said[0], said[1].replace("sk-hunter2", "**********")]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("serve --replay no/such.jsonl", "cannot read the cassette 'no/such.jsonl': No such file or directory"),
        ("serve --model m --replay x", "a cassette has its own models; omit --model, --load, --catalog and --rules"),
    ],
)
def test_a_cassette_that_cannot_be_served_is_wrong_usage(piped: Piped, arguments: str, problem: str) -> None:
    status, out, err = piped(*arguments.split())
    assert (status, out) == (2, "")
    assert problem in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_in_place_of_a_cassette_is_one_line(piped: Piped, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)  # nobody writes to it
    status, _, problem = piped("serve", "--port", "0", "--replay", str(pipe))
    assert (status, problem[:7], len(problem.splitlines())) == (2, "Error: ", 1)
    assert f"{str(pipe)!r}" in problem
    assert "it is a pipe or a device, not a file" in problem
