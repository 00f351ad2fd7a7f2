"""Files that users name: one that no command can read or write is one line of error, and nothing waits for it."""

import os
import sys
from pathlib import Path

import pytest

from tests.cli.managed import Piped, of_commands

pytestmark = [
    pytest.mark.leaf("command_line"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes"),
]

IN_PLACE_OF_FILES = of_commands(
    dict.fromkeys(
        [
            "serve --scripted --model m --port 0 --rules",
            "serve --scripted --model m --port 0 --catalog",
            "serve --scripted --model m --port 0 --token-file",
            "demo --svg",
        ]
    )
)


@pytest.mark.parametrize("command", IN_PLACE_OF_FILES)
def test_a_pipe_in_place_of_a_file_is_one_line(piped: Piped, tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)  # nobody writes to it or reads from it
    status, _, problem = piped(*command.split(), str(pipe))
    assert (status, problem[:7]) == (2, "Error: ")
    assert f"{str(pipe)!r}" in problem
    assert "it is a pipe or a device, not a file" in problem
    assert len(problem.splitlines()) == 1
