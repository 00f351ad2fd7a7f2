"""The format of cassettes: what is written is read again, the same content is the same bytes, and damage is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator.cassettes.cassette import ABSENT, Event, Interaction, Writer, read, save
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

HEAD = b'{"cassette":1}\n'


def interactions() -> list[Interaction]:
    prediction = Interaction(1, 0.5, "channel", "llm", "predict", {"z": 1, "a": ["\u2028", "\ud800"]}, section="first")
    prediction.events += [
        Event("received", 0.1, {"type": "fragment"}),
        Event("sent", 0.2, {"type": "cancel"}),
        Event("closed", 0.25),
    ]
    void = Interaction(2, 1.0, "call", "system", "version", events=[Event("result", 0.0)])
    failed = Interaction(3, 1.5, "call", "llm", "tokenize", None, events=[Event("error", 0.0, {"title": "No"})])
    return [prediction, void, failed]


def plain(recorded: list[Interaction]) -> list[Any]:
    return [
        (each.number, each.at, each.kind, each.namespace, each.endpoint, each.parameter, each.events, each.section)
        for each in recorded
    ]


@pytest.mark.parametrize("name", ["x.lms.jsonl", "x.lms.jsonl.gz"])
def test_what_is_written_is_read_again_and_always_the_same_bytes(tmp_path: Path, name: str) -> None:
    paths = [tmp_path / "one" / name, tmp_path / "two" / f"other-{name}"]
    for path in paths:
        path.parent.mkdir()
        save(path, interactions())
    assert plain(read(paths[0])) == plain(interactions())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read(paths[0])[1].parameter is ABSENT
    assert [path.name for path in paths[0].parent.iterdir()] == [name]


def test_each_event_is_a_line_and_those_of_a_request_are_together(tmp_path: Path) -> None:
    path = tmp_path / "x.lms.jsonl"
    save(path, interactions())
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[1:-1]]
    assert [(line["event"], line["id"]) for line in lines] == [
        *[("channel", 1), ("received", 1), ("sent", 1), ("closed", 1)],
        *[("call", 2), ("result", 2)],
        *[("call", 3), ("error", 3)],
    ]


def test_a_recording_never_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.lms.jsonl").write_text("mine")
    with pytest.raises(LMStudioOSError, match="exists"):
        Writer(tmp_path / "x.lms.jsonl")
    with pytest.raises(LMStudioOSError, match="cannot write"):
        Writer(tmp_path / "x.lms.jsonl" / "below")


BAD: dict[str, tuple[bytes, str]] = {
    "another file": (b"hello\n", "is not a cassette"),
    "other JSON": (b"[1]\n", "is not a cassette"),
    "a later version": (b'{"cassette":2}\n', "has version 2"),
    "no JSON": (HEAD + b"{\n", "line 2"),
    "no object": (HEAD + b"5\n", "line 2"),
    "an unknown event": (HEAD + b'{"event":"x","id":1,"at":0}\n', "unknown event 'x'"),
    "no time": (HEAD + b'{"event":"closed","id":1,"at":null}\n', "the time None"),
    "an event of no request": (HEAD + b'{"event":"closed","id":1,"at":0}\n', "line 2"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_is_no_cassette_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.lms.jsonl"
    path.write_bytes(data)
    with pytest.raises(LMStudioValueError, match=message):
        read(path)


@pytest.mark.parametrize("data", [None, gzip.compress(HEAD)[:-6], b"plain"], ids=["missing", "cut", "not compressed"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "x.lms.jsonl.gz"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LMStudioOSError, match=r"cannot read the cassette '.*x\.lms\.jsonl\.gz'"):
        read(path)
