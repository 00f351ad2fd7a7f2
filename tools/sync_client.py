"""Writes `lmstudio_integrations/client/api/sync.py`, the client for threads, from `asynchronous.py`.

Run `python -m tools.sync_client` after `asynchronous.py` was changed; a test notices when they differ. All that changes
is words, in the code and in the docstrings alike: `async` and `await` go, and so does `Async` in a name.
"""

import re
import subprocess
import sys

from tools import ROOT

SOURCE = ROOT / "lmstudio_integrations/client/api/asynchronous.py"
SYNC = SOURCE.with_name("sync.py")

HEADER = "# Written by `python -m tools.sync_client` from asynchronous.py.\n"

PHRASES = {
    "for coroutines, in any event loop": "for threads",
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


def sync_client() -> str:
    """Return the text of the module, not formatted yet."""
    text = SOURCE.read_text(encoding="utf-8")
    for phrase, other in PHRASES.items():
        assert phrase in text, f"asynchronous.py no longer says {phrase!r}"
        text = text.replace(phrase, other)
    text = re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)
    return HEADER + re.sub(r"\b(?:async (?=def|for|with)|await )|Async(?=[A-Z])", "", text)


if __name__ == "__main__":
    SYNC.write_text(sync_client(), encoding="utf-8")
    for command in (["check", "--fix", "--select=I"], ["format"]):  # other names are sorted and wrapped otherwise
        subprocess.run([sys.executable, "-m", "ruff", *command, SYNC], check=True)
