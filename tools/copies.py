"""Copies of this clone, in which something is missing or wrong, and what Python does there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools import ROOT


def copy_clone(folder: Path) -> None:
    """Copy all files of this clone into a folder, except those that git ignores."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():  # else it is deleted, and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


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
