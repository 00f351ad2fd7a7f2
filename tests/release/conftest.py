"""The distributions, as they would be published, and an index of packages on this machine that has them."""

import functools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lmstudio_integrations._support.installation import NAME
from tests.release.project import UV, Project
from tools import ROOT


@pytest.fixture(scope="session")
def distributions() -> Path:
    """Build the wheel and the sdist into `dist`, from where the release workflow publishes them."""
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([UV or "uv", "build", "--quiet"], cwd=ROOT, check=True, timeout=600)
    return folder


class _Files(SimpleHTTPRequestHandler):
    """Lists folders in HTML, which is what a simple index of packages is."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


@pytest.fixture(scope="session")
def index(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the distributions, and yield the URL of the index."""
    folder = tmp_path_factory.mktemp("index")
    shutil.copytree(distributions, folder / NAME, ignore=shutil.ignore_patterns(".*"))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path, index: str) -> Project:
    return Project(tmp_path, index)


@pytest.fixture(scope="session")
def equipped(tmp_path_factory: pytest.TempPathFactory, index: str) -> Project:
    """A project with this package, its extras, the agents of others, and what checks types."""
    project = Project(tmp_path_factory.mktemp("equipped"), index)
    project.uv("pip", "install", f"{NAME}[all]", "deepagents", "mypy", "pyright[nodejs]")
    return project
