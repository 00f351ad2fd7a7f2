"""A stranger's first hour: an empty folder, one page, and a server with other models on another port.

Every command comes from the page, in its order. The stranger replaces only what the page says to replace: the
address of the server, and the keys of the models.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.docs.snippets import read
from tests.release.project import TIMEOUT, UV, plain_variables, variables_with
from tools import ROOT

pytestmark = [
    pytest.mark.network,
    pytest.mark.timeout(3 * TIMEOUT),
    pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell"),
]

KEYS = {
    "smollm2-135m-instruct": "acme/chat-mini",
    "text-embedding-all-minilm-l6-v2": "acme/vectors-mini",
    "scripted-tools": "acme/agent-mini",
}
"""The models of the pages, and those of the stranger's server."""

FIRST_SUCCESS = 5
"""The command with which the first program responds, at the latest."""

COMMAND = re.compile(r"^```(sh|python)\n(.*?)^```$|`((?:export|lmsi) [^`]+)`", re.MULTILINE | re.DOTALL)

PIER = (
    {"when": {"role": "user", "tools": ["pier"]}, "then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    {"when": {"role": "tool"}, "then": [{"text": "From pier 7."}]},
)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    chat, vectors, agent = KEYS
    with Emulator(
        [
            ModelEntry(key=KEYS[chat], engine="llama_cpp", weights=chat),
            ModelEntry(key=KEYS[vectors], kind="embedding", engine="llama_cpp", weights=vectors),
            ModelEntry(key=KEYS[agent], tools=True, rules=PIER),
        ]
    ) as server:
        yield server


class Stranger:
    """Runs commands in a shell, whose variables last from one command to the next.

    Args:
        folder: Where they run.
        index: The index of packages that has this one.
        python: The interpreter that `python3` is; `None` for that of the shell. It may lack `venv`, as Debian's does.
    """

    def __init__(self, folder: Path, index: str, python: str | None) -> None:
        self._folder = folder
        self._variables = variables_with(index, folder)
        self._python3 = f'python3() {{ "{UV}" venv --seed --python "{python}" .venv; }}' if python else ""

    def run(self, command: str) -> None:
        """Run a command, which must succeed and, unless it only prepares, print something."""
        script = f"set -e; {self._python3}\n{command}\nunset -f python3; env -0 >variables"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout or not command.startswith(("lmsi", "python ")), f"{command} printed nothing"
        pairs = (self._folder / "variables").read_text(encoding="utf-8").rstrip("\0").split("\0")
        self._variables = dict(pair.split("=", 1) for pair in pairs)

    def run_program(self, code: str) -> None:
        (self._folder / "program.py").write_text(code, encoding="utf-8")
        self.run("python program.py")


def commands_of(page: str) -> list[tuple[str, str]]:
    """Return the commands and programs of a page in their order, each with its language."""
    text, found = read(page).partition("\n## How it compares")[0], list[tuple[str, str]]()
    for language, code, inline in COMMAND.findall(text):
        lines = [code] if language == "python" else (code or inline).splitlines()
        found += [(language or "sh", line) for line in lines if not line.startswith(("lmsi serve", "uvx"))]
    return found


def replaced(text: str, address: str) -> str:
    """Return a command with what the stranger has in place of what the page has."""
    for old, new in KEYS.items():
        text = text.replace(old, new)
    return re.sub(r"(?<=^export LMSTUDIO_HOST=).*", address, text)


def oldest_python() -> str | None:
    """Return an interpreter of the oldest version that the package takes, if there is one."""
    return found_by(UV or "uv", "python", "find", "--no-project", "3.11")


def newest_python() -> str | None:
    """Return one of the newest version, which is unpacked if need be."""
    return found_by(str(ROOT / ".ci" / "python3.14"))


def found_by(*command: str) -> str | None:
    done = subprocess.run(command, env=plain_variables(), capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@pytest.mark.parametrize(
    ("page", "most", "python"),
    [
        ("README.md", 6, oldest_python),
        ("README.md", 6, newest_python),
        ("docs/get-started.md", 12, None),
    ],
)
def test_a_stranger_succeeds_with_the_commands_of_one_page(
    page: str, most: int, python: Callable[[], str | None] | None, server: Emulator, index: str, tmp_path: Path
) -> None:
    interpreter = python() if python else None
    if python and not interpreter:
        pytest.skip("there is no such Python here")
    commands, stranger = commands_of(page), Stranger(tmp_path, index, interpreter)
    languages = [language for language, _ in commands]
    assert languages.index("python") < FIRST_SUCCESS, commands
    assert len(commands) <= most, commands
    for language, command in commands:
        run = stranger.run_program if language == "python" else stranger.run
        run(replaced(command, server.address))
