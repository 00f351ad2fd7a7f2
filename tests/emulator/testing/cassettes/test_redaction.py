"""Secrets never reach a cassette, and what is replayed is found although its secrets are hidden."""

import json
import re
from pathlib import Path

import pytest

from lmstudio_integrations.emulator.testing.redaction import Redaction
from lmstudio_integrations.errors import LMStudioValueError

KEPT = [
    "{" * 2_000,
    '{"a": ' * 500 + "1" + "}" * 500,
    "The token budget is 512 tokens: password reset",
    {"tokens": [1, 2], "maxTokens": 5, "bosToken": "<s>"},
    {"fragment": {"content": "a", "tokens": [{"text": "a", "id": 5}]}},
    {"parameters": {"properties": {"password": {"title": "Password"}, "auth": {"$ref": "#/$defs/Credentials"}}}},
    {
        "parameters": {
            "properties": {"password": {"type": "string"}, "any": {}, "date": {"format": "date"}, "all": True}
        }
    },
    {"$defs": {"Credentials": {"type": "object", "properties": {"token": {"type": ["string", "null"]}}}}},
    {"properties": {"arguments": {"type": "object", "properties": {"password": {"type": "string"}}}}},
    '<tools>{"name": "log_in", "parameters": {"properties": {"password": {"type": "string"}}}}</tools>',
    {"max_tokens": 5, "token_count": 7, "token_ids": [1, 2], "bos_token": "<s>", "time_to_first_token": 0.5},
    {"arguments": {"n_tokens": 5, "passes": 3, "headless": "new", "handlers": ["a"], "author": "me", "tokenizer": "x"}},
    '{"max_tokens": 5, "token_count": "7", "tokens": ["a"], "password": null, "secret": true, "token": ""}',
    "It's the password: 'hidden' or \"shown\"? {\"a\": [1, {'b",
    "class User:\n    password: str\n    token: Optional[str] = None\n    password=input(),",
    "def f(\n    api_key=api_key,\n    secret=read(),\n) -> None",
    "type User = {\n  password: string;\n}",
    "/usr/share/homes/x and C:\\Windows",
]


CALL = {"name": "log_in", "arguments": {"password": "hunter2"}}
TEXT = {"text": json.dumps({"access_token": "hunter2", "user": "me"})}
HIDDEN = {
    "beside its name": {"name": "Authorization", "value": "hunter2"},
    "below properties": {"arguments": {"properties": {"password": "hunter2"}}},
    "like a schema": {"arguments": {"properties": {"password": {"type": "hunter2"}}}},
    "like a schema in a text": {"arguments": {"body": '{"properties": {"password": {"title": "hunter2"}}}'}},
    "of a schema": {"parameters": {"properties": {"password": {"type": "string", "default": "hunter2"}}}},
    "of a type": {"password": {"type": "hunter2"}},
    "in JSON": TEXT,
    "in JSON in JSON in quotes": {"text": json.dumps(json.dumps(TEXT))},
    "in JSON in a sentence": {"text": f"It's \"here\": {json.dumps(CALL)}, isn't it?"},
    "in Python": {"text": str(CALL)},
    "in JSON that is cut off": {"text": '{"password": "hunter2'},
    "as a number": {"text": '{"password": 4711}'},
    "in XML": {"toolCallRequest": CALL, "rawContent": "<parameter=password>\nhunter2\n</parameter>"},
    "in Python code": {"toolCallRequest": CALL, "rawContent": "[log_in(password='hunter2')]"},
    "as a number in a sentence": {"text": 'See "password": 4711, yes'},
    "in an object in a sentence": {"text": 'See "headers": {"x": {"y": "hunter2"}}'},
    "beside its name in Python": {"text": "[{'name': 'Authorization', 'value': 'hunter2'}]"},
    "beside its name, cut off": {"text": '{"a": {"key": "password", "value": "hunter2'},
    "in a list in Python": {"text": "{'headers': ['hunter2', 'hunter2']}"},
    "deep, cut off": {"text": 'See {"password": {"a": {"b": ["hunter2", {"c": "hunter2"}'},
    "under a path": {"text": "{'spring:datasource/password': 'hunter2'}"},
    "in a call in XML that failed": {"rawContent": "<function=log_in><parameter=password>\nhunter2\n</parameter>"},
    "in a call in XML with names": {"rawContent": '<invoke name="log_in"><parameter name="password">hunter2'},
    "in a shell": {"text": "Run API_KEY=hunter2 make"},
    "in settings": {"text": "user=me\npassword=hunter2\n"},
    "in YAML": {"text": "db:\n  user: me\n  password: hunter2\n"},
    "in an element of XML": {"text": "<user>me</user><password>hunter2</password>"},
    "in a header": {"text": "GET / HTTP/1.1\r\nX-Api-Key: hunter2\r\nCookie: a=hunter2; b=hunter2\r\n"},
    "in the query of a URL": {"text": "https://host/?pwd=hunter2&sig=hunter2&a=1"},
    "a token after a line break": {"text": 'He wrote "a\\nghp_hunter2hunter2hunter2hunter2"'},
    "a private key": {"text": "-----BEGIN RSA PRIVATE KEY-----\nhunter2+/=\n-----END RSA PRIVATE KEY-----"},
}
"""Values with a secret, by where it is."""


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_a_secret_is_hidden_wherever_it_stands(value: object) -> None:
    redacted = Redaction().value(value)
    assert not re.search("hunter|4711", json.dumps(redacted))
    assert Redaction().value(redacted) == redacted


@pytest.mark.parametrize("cut", range(0, 28, 3))
def test_arguments_that_arrive_in_parts_are_those_of_the_call(cut: int) -> None:
    arguments = {"n": "é", "password": 'x"\\y', "pin": {"secret": 5}}
    text = json.dumps(arguments)
    parts = Redaction().parts([text[:cut], text[cut : cut + 3], text[cut + 3 :]], place="arguments")
    assert len(parts) == 3
    assert json.loads("".join(parts)) == Redaction().value({"arguments": arguments})["arguments"]


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "pattern",
    ['"password":"x ', "://a@", "C:\\Users\\", "-----BEGIN PRIVATE KEY-----", "<password>", "API_KEY=", "\npwd: "],
)
def test_each_place_of_a_streamed_text_is_looked_at_once(pattern: str) -> None:
    """Were each part compared with each secret, this would take many minutes."""
    text = pattern * 30_000
    parts = Redaction().parts([text[at : at + 4] for at in range(0, len(text), 4)])
    assert len(parts) == (len(text) + 3) // 4


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
