"""A recipe of a chat in the browser, as a process of its own, and the emulator behind it."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lmstudio_integrations.emulator import Emulator
from tests.cookbook.recipes import COOKBOOK, TOOLS, environment
from tools.outputs import WARNINGS

URL = re.compile(r"running on (http://127\.0\.0\.1:\d+)")
STOP_TIMEOUT = 20

ENDLESS: Mapping[str, Any] = {
    "key": TOOLS,
    "rule": [
        {"when": {"last": "Look it up"}, "then": [{"tool": "departures", "arguments": {"destination": "island"}}]},
        {"when": {"role": "tool"}, "then": [{"text": "Every hour. " * 2000}]},
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
def chat_server(*app: str) -> Iterator[tuple[str, Emulator]]:
    """Start an emulator, and a recipe on it as uvicorn starts it; the values are the recipe's URL and the emulator."""
    command = [sys.executable, *WARNINGS, "-m", "uvicorn", *app, "--port", "0", "--no-use-colors"]
    with Emulator([ENDLESS], load=[ENDLESS["key"]]) as emulator:
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


def stop_reason(emulator: Emulator) -> str | None:
    """Wait until the last prediction has ended; return why it did."""
    emulator.wait_for(lambda: emulator.predictions[-1].state == "ended", STOP_TIMEOUT)
    return emulator.predictions[-1].stop_reason


def _url(process: "subprocess.Popen[str]") -> str:
    """Read the log until the server listens; return its URL."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if found := URL.search(line):
            return found[1]
    raise AssertionError("".join(lines))
