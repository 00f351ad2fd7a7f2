"""Makes stderr a terminal for tqdm, and reads the bars that were drawn there."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

Drawn: TypeAlias = Callable[[], str]
"""Returns what was drawn since the last call."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Drawn:
    """A terminal as stderr, and a function that returns what was drawn on it."""
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True)
    return lambda: capsys.readouterr().err
