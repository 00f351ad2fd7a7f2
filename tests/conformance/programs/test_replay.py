"""What the programs have recorded with this package, they replay with the same results."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from sdk_servers import CHAT, EMBEDDING

from lmstudio_integrations.cassettes import Recording, Replay
from lmstudio_integrations.emulator import Emulator

PACKAGE = "lmstudio_integrations"
PROGRAMS = str(Path(__file__).parent / "programs.py")


def test_the_programs_replay_what_they_have_recorded(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        Emulator([CHAT, EMBEDDING], auto_evict=False) as server,
        Recording(tmp_path / "cassette", server.address) as recording,
    ):
        monkeypatch.setattr(sys, "argv", [PROGRAMS, PACKAGE, recording.address])
        runpy.run_path(PROGRAMS, run_name="__main__")
    found = json.loads(capsys.readouterr().out)
    with Replay(tmp_path / "cassette") as replay:
        assert run(PACKAGE, [replay]) == [found]
    assert replay.unmatched == ()
