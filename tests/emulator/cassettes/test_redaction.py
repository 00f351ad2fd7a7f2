"""Secrets never reach a cassette, and what is replayed is found although its secrets are hidden."""

from pathlib import Path

import pytest

from lmstudio_integrations.emulator.cassettes.redaction import Redaction
from lmstudio_integrations.errors import LMStudioValueError
from tests.emulator.cassettes.sessions import Session, leaks


@pytest.mark.parametrize("seed", range(50))
def test_no_secret_of_a_generated_session_is_recorded(seed: int, tmp_path: Path) -> None:
    assert leaks(Session(seed), tmp_path / "session.lms.jsonl") == []


KEPT = [
    "The token budget is 512 tokens: password reset",
    {"tokens": [1, 2], "maxTokens": 5, "bosToken": "<s>"},
    {"fragment": {"content": "a", "tokens": [{"text": "a", "id": 5}]}},
    {"parameters": {"properties": {"password": {"type": "string", "description": "of the user"}}}},
    {"key": "llm.prediction.temperature", "value": 0.5},
    "/usr/share/homes/x and C:\\Windows",
]


@pytest.mark.parametrize("value", KEPT, ids=str)
def test_what_is_no_secret_stays(value: object) -> None:
    assert Redaction().value(value) == value


def test_the_home_of_this_user_is_hidden_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/data/me"))
    assert Redaction().text("/data/me/x.txt, not /data/mean/x.txt") == "~/x.txt, not /data/mean/x.txt"


def test_files_are_replaced_by_their_hash_unless_their_contents_are_wanted() -> None:
    upload = {"name": "cat.png", "contentBase64": "aGVsbG8="}
    inline = {"type": "file", "identifier": "base64:aGVsbG8="}
    hashed, again = Redaction().value(upload), Redaction().value(Redaction().value(upload))
    assert hashed == again
    assert hashed["contentBase64"].startswith("sha256:")
    assert Redaction().value(inline)["identifier"] == f"base64:{hashed['contentBase64']}"
    keeping = Redaction(contents=True)
    assert [keeping.value(each) for each in (upload, inline)] == [upload, inline]


@pytest.mark.parametrize(("pattern", "reason"), [("(", "is not a regular expression"), ("a*", "matches an empty text")])
def test_a_wrong_pattern_is_named(pattern: str, reason: str) -> None:
    with pytest.raises(LMStudioValueError, match=reason):
        Redaction([pattern])
