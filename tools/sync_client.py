"""Writes the clients for threads from those for coroutines: each `sync.py` from the `asynchronous.py` beside it.

Run `python -m tools.sync_client` after an `asynchronous.py` was changed; a test notices when they differ. All that
changes is words, in the code and in the docstrings alike: `async` and `await` go, and so does `Async` in a name.
"""

import re
import subprocess
import sys
from pathlib import Path

from tools import ROOT

ROOMS = ("api", "api/decisions", "downloads", "plugins")
SOURCES = [ROOT / f"lmstudio_integrations/client/{room}/asynchronous.py" for room in ROOMS]

HEADER = "# Written by `python -m tools.sync_client` from asynchronous.py.\n"

PHRASES = {
    "for coroutines, in any event loop": "for threads",
    "for coroutines": "for threads",
    "\n        Notebooks and `python -m asyncio` run an `await` that is in no function.": "",
}
"""What the docstrings of the sync client say in other words, or not at all."""

NAMES = {
    "AsyncModelHandle": "SyncModelHandle",  # the official SDK has no other name for it
    "LoopMailbox": "ThreadMailbox",
    "TaskRunner": "ThreadRunner",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "arun": "run",
}


def sync_client(source: Path) -> str:
    """Return the text of the module for threads, not formatted yet."""
    text = source.read_text(encoding="utf-8")
    for phrase, other in PHRASES.items():
        text = text.replace(phrase, other)
    text = re.sub(r"(?<=\.)asynchronous(?= import)", "sync", text)
    text = re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)
    return HEADER + re.sub(r"\b(?:async (?=def|for|with)|await )|Async(?=[A-Z])", "", text)


if __name__ == "__main__":
    for source in SOURCES:
        sync = source.with_name("sync.py")
        sync.write_text(sync_client(source), encoding="utf-8")
        for command in (["check", "--fix", "--select=I"], ["format"]):  # other names are sorted and wrapped otherwise
            subprocess.run([sys.executable, "-m", "ruff", *command, sync], check=True)
