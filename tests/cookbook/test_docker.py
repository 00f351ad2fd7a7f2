"""The files of the page about Docker: Compose takes them, and their commands work, here without Docker."""

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.snippets import ROOT
from tools.outputs import environment

FOLDER = ROOT / "cookbook/docker"
SCRIPTS = Path(sys.executable).parent
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]


def test_the_image_has_the_weights_that_the_tests_use() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert f"--no-deps {' '.join(groups['weights'])}\n" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.exhaustive
def test_compose_takes_the_files() -> None:
    pytest.importorskip("check_jsonschema", reason="the group lint is not installed")
    command = words("check-jsonschema --builtin-schema vendor.compose-spec")
    subprocess.run([*command, *map(str, FOLDER.glob("*.yaml"))], timeout=600, check=True)


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform == "win32", reason="the containers run Linux")
def test_the_application_uses_the_emulator_beside_it_once_that_is_healthy() -> None:
    app, emulator = SERVICES["app"], SERVICES["emulator"]
    name, _, port = app["environment"]["LMSTUDIO_HOST"].partition(":")
    assert SERVICES[name] is emulator
    serve = emulator["command"].replace("0.0.0.0", "127.0.0.1").replace(f"--port {port}", "--port 0")
    with subprocess.Popen(words(serve), stdout=subprocess.PIPE, env=environment(""), text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            check = shlex.join(emulator["healthcheck"]["test"][1:]).replace(f"localhost:{port}", address)
            run(check, address)
            assert run(app["command"], address, **app["environment"]) == "The capital of France is Paris.\n"
        finally:
            server.terminate()


def words(command: str) -> list[str]:
    """Return a command of a container for the environment of the tests."""
    program, *arguments = shlex.split(command)
    return [str(SCRIPTS / program), *arguments]


def run(command: str, host: str, **variables: str) -> str:
    """Return what a command prints on a server."""
    return subprocess.run(
        words(command),
        cwd=FOLDER,
        env=variables | environment(host),
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    ).stdout
