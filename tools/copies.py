"""Copies of this clone, in which something is missing or wrong, and what Python does there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools import ROOT
from tools.leaves import PACKAGE


def copy_clone(folder: Path) -> None:
    """Copy the package into a folder, and what its tests need."""
    for name in (PACKAGE, "tests", "tools", "docs", "cookbook"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)


def run_in(folder: Path, *arguments: str, seconds: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Python in a copy; it, and the processes that it starts, import the copy's package.

    Raises:
        subprocess.TimeoutExpired: If that takes longer than some seconds.
    """
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
