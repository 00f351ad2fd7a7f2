"""The format of cassettes: what is written is read again, the same content is the same bytes, and damage is named."""

import json
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support.environment import __version__
from lmstudio_integrations.cassettes.cassette import ABSENT, Event, Interaction, read, save
from lmstudio_integrations.errors import LMStudioOSError, LMStudioValueError

HEAD = b'{"cassette":2}\n'


def interactions() -> list[Interaction]:
    prediction = Interaction(1, "channel", "llm", "predict", {"z": 1, "a": ["\u2028", "\ud800"]}, section="first")
    prediction.events += [
        Event("received", {"type": "fragment"}),
        Event("sent", {"type": "cancel"}),
        Event("closed"),
    ]
    void = Interaction(2, "call", "system", "version", events=[Event("result")])
    failed = Interaction(3, "call", "llm", "tokenize", None, events=[Event("error", {"title": "No"})])
    return [prediction, void, failed]


def plain(recorded: list[Interaction]) -> list[Any]:
    return [(each.number, each.kind, each.name, each.parameter, each.events, each.section) for each in recorded]


def test_what_is_written_is_read_again_and_always_the_same_bytes_with_a_line_for_each_event(tmp_path: Path) -> None:
    paths = [tmp_path / "x.lms.jsonl", tmp_path / "other-x.lms.jsonl"]
    for path in paths:
        save(path, interactions())
    assert plain(read(paths[0])) == plain(interactions())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read(paths[0])[1].parameter is ABSENT
    lines = [json.loads(line)["event"] for line in paths[0].read_bytes().split(b"\n")[1:-1]]
    assert lines == ["channel", "received", "sent", "closed", "call", "result", "call", "error"]


def test_the_first_line_has_the_versions_also_where_no_metadata_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_name(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(Distribution, "from_name", from_name)
    save(tmp_path / "x", [])
    (head,) = (tmp_path / "x").read_text(encoding="utf-8").splitlines()
    assert json.loads(head) == {"cassette": 2, "recorded_by": f"lmstudio-integrations {__version__}"}


def test_a_request_that_is_new_changes_no_line_of_the_others(tmp_path: Path) -> None:
    paths = [tmp_path / "before", tmp_path / "after"]
    save(paths[0], interactions()[1:])
    save(paths[1], interactions())
    before, after = (path.read_bytes().splitlines() for path in paths)
    assert [line for line in after if line in before] == before


CALL = HEAD + b'{"event":"call","namespace":"llm","endpoint":"x"}\n'
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not a cassette"),
    "other JSON": (b"[1]\n", "is not a cassette"),
    "an earlier version": (b'{"cassette":1}\n', "has version 1 .* record it again"),
    "no JSON": (CALL + b"<<<<<<< ours\n", "line 3 .*: it is not a JSON object"),
    "a line that is cut off": (CALL[:-3], "line 2 .*: it is not a JSON object"),
    "an empty line": (CALL + b"\n", "line 3 .*: it is not a JSON object"),
    "no object": (HEAD + b"5\n", "line 2 .*: it is not a JSON object"),
    "an unknown event": (HEAD + b'{"event":"x"}\n', "unknown event 'x'"),
    "an event of no request": (HEAD + b'{"event":"closed"}\n', "line 2 .*: no request before it is open"),
    "no endpoint": (HEAD + b'{"event":"call","namespace":"llm"}\n', "it has no 'endpoint'"),
    "an event after the end": (CALL + b'{"event":"lost"}\n' * 2, "line 4 .*: no request before it is open"),
    "an error without content": (CALL + b'{"event":"error"}\n', "its body is not an object"),
    "a packet that is no object": (CALL + b'{"event":"sent","body":1}\n', "its body is not an object"),
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
