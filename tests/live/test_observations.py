"""A recording of the probe joins the corpus of observations as it is."""

from pathlib import Path

import pytest

from lmstudio_integrations.cassettes.cassette import ABSENT, Event, Interaction
from tests.live.recording import ask_emulator
from tests.real.players import PLAYERS, play
from tools.evidence.page import version_of
from tools.evidence.rows import OBSERVATIONS, read
from tools.probe.observations import THIS_MACHINE, observations_of, write_observations

STATUS = {"package": "bionic", "version": "1.1.7"}
DAY = "2026-11-28"


@pytest.mark.exhaustive
@pytest.mark.slow
async def test_what_a_recorded_server_said_is_read_and_played_with_the_other_observations(tmp_path: Path) -> None:
    cassette = tmp_path / "evidence.jsonl"
    ask_emulator((), cassette)
    path = write_observations(cassette, STATUS, DAY)
    rows = read(path)
    assert path == tmp_path / "evidence.observations.jsonl"
    assert {row.kind for row in rows} >= {
        *("error-load", "error-plugin", "error-predict", "error-rpc", "hardware-survey", "instance", "link", "list"),
        *("load-config", "prediction-config", "stats", "tokens", "warning"),
    }
    assert {(row.source, row.date, row.channel, version_of(row)) for row in rows} == {
        (THIS_MACHINE, DAY, "SDK", "Bionic 1.1.7")
    }
    for row in rows:
        await play(row)
    joined = tmp_path / "observations.jsonl"
    joined.write_bytes(OBSERVATIONS.read_bytes() + path.read_bytes())
    assert len(read(joined)) == len(read(OBSERVATIONS)) + len(rows)


def asked(endpoint: str, *events: Event) -> Interaction:
    return Interaction(1, "call", "llm", endpoint, ABSENT, [*events])


def test_each_form_is_written_once_and_nothing_is_made_of_what_did_not_come() -> None:
    error, stats = {"title": "no memory"}, {"stopReason": "eosFound", "totalTokensCount": 1}
    others = {**stats, "totalTokensCount": 2}, {**stats, "stopReason": "userStopped"}
    packets = [Event("received", {"type": "success", "stats": each}) for each in (stats, *others)]
    recorded = [
        asked("loadModel", Event("error", error)),
        asked("getOrLoad", Event("error", error)),
        asked("predict", *packets, Event("closed")),
        asked("getModelInfo", Event("result")),
        asked("listLoaded", Event("result", [])),
        asked("unloadModel", Event("result", {})),
        asked("countTokens", Event("lost")),
    ]
    rows = [*observations_of(recorded, version="0.4.24", date=DAY, source="a Mac")]
    assert [(row.kind, row.payload) for row in rows] == [
        ("error-load", error),
        ("stats", stats),
        ("stats", others[1]),
    ]
    assert len({row.id for row in rows}) == 3
    assert {row.source for row in rows} == {"a Mac"}
    assert {row.kind for row in rows} <= PLAYERS.keys()
