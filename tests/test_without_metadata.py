"""The package works without the metadata of an installation: from a folder of sources, a zip, or a vendored copy."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import __version__
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio

PACKAGE = Path(lms.__file__).parent

PROGRAM = """
import sys
from importlib.metadata import PackageNotFoundError, distribution
try:
    distribution("lmstudio-integrations")
except PackageNotFoundError:
    pass
else:
    raise AssertionError("it is installed")
from typer.main import get_group
from lmstudio_integrations.cli._main import main
from lmstudio_integrations.cli._app import app
from lmstudio_integrations.emulator import Emulator, ModelEntry
import lmstudio_integrations as lms
with Emulator([ModelEntry(key="m")]) as server:
    print(lms.Client(server.address).llm.model("m").respond("hello"))
for arguments in ["--version"], *([name, "--help"] for name in get_group(app).commands):
    sys.argv = ["lmsi", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
"""


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the metadata of this package."""
    found = Distribution.from_name

    def from_name(name: str) -> Distribution:
        if name == "lmstudio-integrations":
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(Distribution, "from_name", from_name)
    with pytest.raises(PackageNotFoundError):
        importlib.metadata.version("lmstudio-integrations")


@pytest.mark.usefixtures("not_installed")
def test_models_are_loaded_without_metadata() -> None:
    with Emulator([ModelEntry(key="m")]) as server:
        models: list[Any] = [ChatLMStudio(model="m", host=server.address), LMStudio(model="m", host=server.address)]
        assert models[0].invoke("hello").text == models[1].complete("hello").text
        with lms.Client(server.address) as client:
            assert client.system.get_version().version.startswith(__version__)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_zip_on_the_path_works(tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for each in Path(pytest.__file__).parents[1].iterdir():
        if "lmstudio_integrations" not in each.name:
            (others / each.name).symlink_to(each)
    copy = tmp_path / "copy.zip"
    with zipfile.ZipFile(copy, "w") as archive:
        for source in PACKAGE.rglob("*"):
            archive.write(source, source.relative_to(PACKAGE.parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(copy), str(others)))}
    run = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert f"\n{__version__}\n" in run.stdout
    assert "Usage: lmsi " in run.stdout
