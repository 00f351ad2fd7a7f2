"""The recipe of a chat in the browser, as a process of its own, and the emulator behind it."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.recipes import COOKBOOK, environment

URL = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
STOP_TIMEOUT = 20

ENDLESS: Mapping[str, Any] = {
    "key": "endless",
    "rule": [
        {"when": {"last": "stall"}, "then": [{"fault": "stall"}]},
        {"when": {"last": "fail"}, "then": [{"text": "Every"}, {"error": "The engine failed."}]},
        {"when": {"last": "flow"}, "then": [{"text": "Every hour. " * 2000}]},
        {"when": {"last": "HTML"}, "then": [{"text": "<b>Every</b> hour"}]},
        {"then": [{"reasoning": "The timetable!"}, {"text": "Hourly"}, {"fault": "stall"}]},
    ],
    "tokens_per_second": 50,
}
"""A model that responds without an end, so that it must be cancelled, or fails."""


@contextmanager
def chat_server(models: Sequence[Mapping[str, Any]] = (ENDLESS,)) -> Iterator[tuple[str, Emulator]]:
    """Start an emulator with the first model loaded, and the recipe on it; the values are the recipe's URL and it."""
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "fastapi_chat:app", "--port", "0", "--no-use-colors"]
    with Emulator(models, load=[models[0]["key"]]) as emulator:
        process = subprocess.Popen(
            command,
            cwd=COOKBOOK,
            env=environment(emulator.address),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield _url(process), emulator
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=STOP_TIMEOUT)
        assert "Traceback" not in errors, errors


def _url(process: "subprocess.Popen[str]") -> str:
    """Read the log until the server listens; return its URL."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if found := URL.search(line):
            return found[1]
    raise AssertionError("".join(lines))
