"""The format of cassettes: what is written is read again, the same content is the same bytes, and damage is named."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.cassette import ABSENT, Event, Interaction, Writer, read
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError
from tests.support.cassettes import save

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


def test_what_is_written_is_read_again_and_always_the_same_bytes_with_a_line_for_each_event(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "x.lms.jsonl", tmp_path / "two" / "other-x.lms.jsonl"]
    for path in paths:
        path.parent.mkdir()
        save(path, interactions())
    assert plain(read(paths[0])) == plain(interactions())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read(paths[0])[1].parameter is ABSENT
    lines = [json.loads(line) for line in paths[0].read_bytes().split(b"\n")[1:-1]]
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


def test_a_request_that_cannot_be_written_as_a_whole_is_not_there(
    tmp_path: Path, limit_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "x.lms.jsonl"
    limit_disk(200)
    with closing(Writer(path)) as writer, pytest.raises(LMStudioOSError, match=r"cannot write .*: .*No space left"):
        writer.write(interactions()[0])
    assert plain(read(path)) == []
    limit_disk(0)
    with pytest.raises(LMStudioOSError, match="No space left"):
        Writer(tmp_path / "new")
    with pytest.raises(LMStudioOSError, match="cannot write the cassette"):
        Writer(tmp_path / ("x" * 300))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_is_written_can_be_read_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.lms.jsonl"
    writer = Writer(path)
    for number, interaction in enumerate(interactions()):
        assert plain(read(path)) == plain(interactions()[:number])
        writer.write(interaction)
    assert plain(read(path)) == plain(interactions())
    writer.close()


def test_of_a_file_that_is_cut_off_what_is_complete_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.lms.jsonl"
    save(path, interactions())
    data = path.read_bytes()
    head = data.index(b"\n")
    for size in range(head, len(data)):
        caplog.clear()
        path.write_bytes(data[:size])
        lines = data[: size + 1].count(b"\n")  # with the last one, if only its end is missing
        is_torn = data[size - 1 : size] != b"\n" != data[size : size + 1]
        found = read(path)
        counts = [len(each.events) + 1 for each in found]
        whole = [each for each in interactions() if each.number <= len(found)]
        assert sum(counts) == (sum(len(each.events) + 1 for each in whole) if is_torn else lines - 1)
        warning = f"line {lines + 1} of the cassette {str(path)!r} is cut off; what is complete is used"
        assert caplog.messages == ([warning] if is_torn else [])


CALL = HEAD + b'{"event":"call","id":1,"at":0,"namespace":"llm","endpoint":"x"}\n'
BAD: dict[str, tuple[bytes, str]] = {
    "other JSON": (b"[1]\n", "is not a cassette"),
    "a later version": (b'{"cassette":2}\n', "has version 2"),
    "no JSON in the middle": (CALL + b"{\n" + CALL.removeprefix(HEAD), "line 3"),
    "no object": (HEAD + b"5\n", "line 2"),
    "an unknown event": (HEAD + b'{"event":"x","id":1,"at":0}\n', "unknown event 'x'"),
    "no time": (HEAD + b'{"event":"closed","id":1}\n', "it has no 'at'"),
    "a text as id": (HEAD + CALL.removeprefix(HEAD).replace(b":1,", b':"1",'), "line 2 .* not a number"),
    "an event of no request": (HEAD + b'{"event":"closed","id":1,"at":0}\n', "line 2"),
    "no endpoint": (HEAD + b'{"event":"call","id":1,"at":0,"namespace":"llm"}\n', "it has no 'endpoint'"),
    "two requests of one id": (CALL + CALL.removeprefix(HEAD), "line 3 .* two requests 1"),
    "an event after the end": (CALL + b'{"event":"lost","id":1,"at":0}\n' * 2, "line 4 .* already ended"),
    "an error without content": (CALL + b'{"event":"error","id":1,"at":0}\n', "its error is not an object"),
    "a packet that is no object": (
        CALL + b'{"event":"sent","id":1,"at":0,"packet":1}\n',
        "its packet is not an object",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_is_no_cassette_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.lms.jsonl"
    with pytest.raises(LMStudioOSError, match=r"cannot read the cassette '.*x\.lms\.jsonl'"):
        read(path)
    path.write_bytes(data)
    with pytest.raises(LMStudioValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
