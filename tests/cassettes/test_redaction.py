"""Secrets never reach a cassette, and what is replayed is found although its secrets are hidden."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstudio_integrations._support.secrets import ENDS, IN_NAMES, KEYS, LAST_WORDS
from lmstudio_integrations._support.secrets import HIDDEN as HIDDEN_TEXT
from lmstudio_integrations.cassettes.cassette import ABSENT, Event, Interaction, recorded
from lmstudio_integrations.cassettes.redaction import redact
from tests.support.leaks import ASSIGNED

KEPT = [
    "{" * 2_000,
    '{"a": ' * 500 + "1" + "}" * 500,
    "The token budget is 512 tokens: password reset",
    {"tokens": [1, 2], "maxTokens": 5, "bosToken": "<s>"},
    {"fragment": {"content": "a", "tokens": [{"text": "a", "id": 5}]}},
    '<tools>{"name": "log_in", "parameters": {"properties": {"password": {"type": "string"}}}}</tools>',
    {"max_tokens": 5, "token_count": 7, "token_ids": [1, 2], "bos_token": "<s>", "time_to_first_token": 0.5},
    {"arguments": {"n_tokens": 5, "passes": 3, "headless": "new", "handlers": ["a"], "author": "me", "tokenizer": "x"}},
    '{"max_tokens": 5, "token_count": "7", "tokens": ["a"], "password": null, "secret": true, "token": ""}',
    'It\'s the password or "shown"? {"a": [1, {\'b',
    "first token: a, eos_token=</s>, --token-file x, a password reset, passwords by mail",
    "config.token(1), --password --user",
    "class User:\n    password: str\n    token: Optional[str] = None\n    password=input(),",
    "def f(\n    api_key=api_key,\n    secret=read(),\n) -> None",
    "type User = {\n  password: string;\n}",
    "/usr/share/homes/x and C:\\Windows",
    "if not token:\n    return\nwhile token:\n    go()\nif password:\n    log_in()\n",
    "The password:\n- must be long\n- must be new",
    "## Password\n\nA password is a word. Passwords are important; a token is not.",
    "db:\n  password:\n  user: me",
    {"parameters": {"required": ["password", "city"], "properties": {"a": {"enum": ["token", "x"]}}}},
    'A schema has "required": ["password", "city"].',
    {"modelKey": "a", "cache_key": "b", "primary_key": "c", "first_pass": True, "pass_rate": 0.5, "author": "me"},
    {"role": "user", "name": "city", "text": "Oslo", "value": "x"},
    {"tags": ["secret", "public"], "results": ["pass", "fail"], "parts": ["header", "footer"]},
    '{"tags": ["secret", "public"], "results": ["pass", "fail"]}',
    {"id": "header", "text": "Welcome"},
    '{"element": "header", "text": "Welcome"}, {"id": "page-header", "text": "Hi"}',
    'x in ("pass", "fail") and assertEqual("token", "x")',
    'A schema has {"enum": ["api_key", "text"]}.',
    "password=read(\n  file)\ntoken = read(a,\n  b)\n",
    "See https://host:1234/a@b and https://x.org/@me.",
]


CALL = {"name": "log_in", "arguments": {"password": "hunter2"}}
TEXT = {"text": json.dumps({"access_token": "hunter2", "user": "me"})}
HIDDEN = {
    "beside its name": {"name": "Authorization", "value": "hunter2"},
    "below properties": {"arguments": {"properties": {"password": "hunter2"}}},
    "of a schema": {"parameters": {"properties": {"password": {"type": "string", "default": "hunter2"}}}},
    "beside a label": {"text": "hunter2", "selector": "#password"},
    "in the arguments of a command": {"command": ["mysql", "--password", "hunter2", "-v"]},
    "beside a header": {"header": "Accept", "element": "X-Auth-Header", "text": "hunter2"},
    "beside a header in a text": {"text": '{"name": "header", "value": "hunter2"}'},
    "in a pair of a header": {"own": [["Authorization", "hunter2"], ["--password", "hunter2"]]},
    "in a pair": {"own": [["X-Api-Key", "hunter2"], ["Accept", "all"]]},
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
    **{f"in {text!r}": {"text": text} for text in ASSIGNED},
    "below two words": {"text": "my password:\n  a: hunter\n  b: hunter\nuser: me"},
    "of letters": {"text": "password: hunter\nuser: me"},
    "of letters between names": {"text": "**Password:** hunter, **user:** me"},
    "of letters in a header": {"text": "curl -H 'Authorization: Digest hunter hunter' https://host"},
    "in the query of a URL": {"text": "https://host/?pwd=hunter2&sig=hunter2&a=1"},
    "a token after a line break": {"text": 'He wrote "a\\nghp_hunter2hunter2hunter2hunter2"'},
    "a private key": {"text": "-----BEGIN RSA PRIVATE KEY-----\nhunter2+/=\n-----END RSA PRIVATE KEY-----"},
}
"""Values with a secret, by where it is."""


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_a_secret_is_hidden_wherever_it_stands(value: object) -> None:
    hidden = redact(value)
    assert not re.search("hunter|4711", json.dumps(hidden))
    assert redact(hidden) == hidden


SOME_TEXTS = st.sampled_from(
    [
        *ASSIGNED,
        *(text for text in KEPT if isinstance(text, str) and len(text) < 500),
        *("cookies = {", "authorization: {", "`Bearer sk-abcdefgh12`", " = ", ": ", ", ", "\n", "[", "}"),
        *("'", '"', "`", "\\"),
        *("token", "password", "Cookie", "name", "value", "/home/me/x", HIDDEN_TEXT),
    ]
)


@given(texts=st.lists(SOME_TEXTS, max_size=8), member=st.sampled_from(["text", "token"]))
def test_what_is_redacted_stays_as_it_is(texts: list[str], member: str) -> None:
    """A replayed request has responses of the cassette in it."""
    hidden = redact({"name": "".join(texts), member: [" ".join(texts), *texts]})
    assert redact(hidden) == hidden


PAGE = Path("docs/tools/cassettes.md").read_text(encoding="utf-8")


def test_the_page_lists_the_words_that_make_a_name_that_of_a_secret() -> None:
    (listed,) = re.findall(r"\n```text\n(anywhere.*?)```", PAGE, re.DOTALL)
    rows = {line.partition(":")[0]: line.partition(":")[2].split() for line in listed.splitlines()}
    before_key = rows.pop("before `key`")
    assert [sorted(row) for row in rows.values()] == [sorted(each) for each in (IN_NAMES, LAST_WORDS, ENDS)]
    assert sorted(before_key) == sorted(KEYS)
    names = [f"db_{word}_x" for word in IN_NAMES] + [f"db_{word}" for word in (*LAST_WORDS, *ENDS)]
    names += [f"db{word.title()}Key" for word in KEYS]
    assert all(redact({name: "x"}) == {name: HIDDEN_TEXT} for name in names)


NOT_COVERED = [
    "The password is hunter2.",
    "password: correct horse battery staple",
    "Authorization: open sesame and more",
    "curl -u me:hunter2 https://host",
    "mysql -phunter2",
    "setx PASSWORD hunter2",
    "| password | hunter2 |",
    "user,password\nme,hunter2",
    "IDENTIFIED BY 'hunter2'",
    "Passwort: hunter2".replace("Passw", "Pa\u00dfw"),
    {"pin": "hunter2"},
    {"salt": "hunter2"},
]
"""What the page says is not hidden: whoever mends one takes it off the page."""


@pytest.mark.parametrize("value", NOT_COVERED, ids=str)
def test_what_the_page_says_is_not_hidden_stays(value: object) -> None:
    assert redact(value) == value


def test_the_schema_of_a_secret_is_hidden_with_it() -> None:
    schema = {"type": "object", "properties": {"password": {"type": "string", "title": "Password"}, "any": {}}}
    hidden = {"type": HIDDEN_TEXT, "title": HIDDEN_TEXT}
    assert redact(schema) == {"type": "object", "properties": {"password": hidden, "any": {}}}


def prediction(*packets: Any) -> Interaction:
    return Interaction(1, "channel", "llm", "predict", ABSENT, [Event("received", packet) for packet in packets])


def packets_of(interaction: Interaction) -> list[dict[str, Any]]:
    found = recorded(interaction)
    assert found is not None
    return list(found.packets())


@pytest.mark.parametrize("kind", ["text", "text of 2024", "arguments"])
@pytest.mark.parametrize("cut", range(0, 48, 5))
def test_a_secret_in_several_packets_is_hidden(cut: int, kind: str) -> None:
    arguments = {"n": "é", "password": 'x"\\y', "pin": {"secret": 5}}
    text = json.dumps(arguments)
    parts = [text[:cut], text[cut : cut + 3], text[cut + 3 :]]
    if kind == "text":
        tokens = [{"text": "x", "id": 1}]
        packets = [{"type": "fragment", "fragment": {"content": part, "tokens": tokens}} for part in parts]
    elif kind == "text of 2024":
        packets = [{"type": "fragment", "fragment": part} for part in parts]
    else:
        part_of_call = "toolCallGenerationArgumentFragmentGenerated"
        packets = [{"type": part_of_call, "content": part} for part in parts]
    start, *streamed = packets_of(prediction({"type": "toolCallGenerationStart"}, *packets))
    assert start == {"type": "toolCallGenerationStart"}
    fragments = [packet if kind == "arguments" else packet["fragment"] for packet in streamed]
    assert len(fragments) == 3
    written = [each if isinstance(each, str) else each["content"] for each in fragments]
    assert json.loads("".join(written)) == redact({"arguments": arguments})["arguments"]
    assert not any("tokens" in each for each in fragments)


def spoken(*parts: tuple[str, str]) -> list[dict[str, Any]]:
    """Return fragments, each by its kind of reasoning and its text."""
    return [
        {"type": "fragment", "fragment": {"content": text, "reasoningType": kind, "tokens": [{"text": text}]}}
        for kind, text in parts
    ]


KINDS = ("reasoning", "reasoning", "tag", "none", "none", "reasoning")


@pytest.mark.parametrize(
    ("parts", "hidden"),
    [
        (("It is ", "sk-abcdefgh", "\n", "No", "!", "So"), (f"It is {HIDDEN_TEXT}", "", "\n", "No", "!", "So")),
        (("It is", " so", "\n", "pwd=", "hunter2", "\nSo"), ("It is", " so", "\n", f"pwd={HIDDEN_TEXT}", "", "\nSo")),
        (("It ", "is", "\n", "pwd=", "hun", "ter2"), ("It ", "is", "\n", f"pwd={HIDDEN_TEXT}", "", "")),
        (("A pwd", "=hun", "ter", "2", " or", " so"), (f"A pwd={HIDDEN_TEXT}", "", " or", "", "", " so")),
    ],
    ids=["reasoning", "response", "over a border", "over two borders"],
)
def test_reasoning_and_response_stay_apart_where_a_secret_is_hidden(
    parts: Sequence[str], hidden: Sequence[str]
) -> None:
    packets = packets_of(prediction(*spoken(*zip(KINDS, parts, strict=True))))
    assert tuple(packet["fragment"]["content"] for packet in packets) == hidden


def test_the_arguments_of_each_call_are_a_text_of_their_own() -> None:
    start, part = {"type": "toolCallGenerationStart"}, "toolCallGenerationArgumentFragmentGenerated"
    calls = [[{"type": part, "content": text} for text in texts] for texts in (['{"a":', "1}"], ['{"pwd":', '"x"}'])]
    _, *first, _, hidden, rest = packets_of(prediction(start, *calls[0], start, *calls[1]))
    assert first == calls[0]
    assert (hidden["content"], rest["content"]) == (f'{{"pwd":"{HIDDEN_TEXT}"}}', "")


def copied(request: dict[str, Any]) -> Any:
    return json.loads(json.dumps(request).replace("Ann Lee", "<name>"))


@pytest.mark.parametrize("parts", [("password=", "hun", "ter2"), ("I am ", "Ann", " Lee")])
def test_what_is_hidden_before_or_by_a_function_that_copies_the_request_has_no_tokens(parts: Sequence[str]) -> None:
    found = recorded(prediction(*spoken(*(("none", part) for part in parts))), copied)
    assert found is not None
    assert not re.search("hun|ter2|Ann|Lee", str(found.events))


def test_a_function_that_copies_a_request_keeps_fragments_and_tokens() -> None:
    said = spoken(("reasoning", "I "), ("reasoning", "am"), ("none", "It "), ("none", "is"))
    interaction = prediction(*said)
    found = recorded(interaction, copied)
    assert found is not None
    assert list(found.packets()) == said
    found = recorded(interaction, lambda request: {**request, "events": request["events"][:2]})
    assert found is not None
    assert [packet["fragment"]["content"] for packet in found.packets()] == ["I ", "am"]


@pytest.mark.parametrize("parts", ["ab", ["a ta", "sk-list-of-things"]])
def test_a_text_without_a_secret_stays_in_its_packets(parts: Sequence[str]) -> None:
    packets: list[dict[str, Any]] = [
        {"type": "fragment", "fragment": {"content": each, "tokens": [{"text": each[0]}]}} for each in parts
    ]
    packets += [{"type": "fragment"}, {}]
    assert list(packets_of(prediction(*packets))) == packets


def test_the_settings_of_a_plugin_are_hidden_and_their_names_are_not() -> None:
    def specifier(value: str) -> dict[str, Any]:
        fields = [{"key": "folder", "value": {"deep": [value]}}]
        return {"pluginConfigSpecifier": {"type": "direct", "config": {"fields": fields}}}

    assert redact(specifier("me")) == specifier(HIDDEN_TEXT)


def test_the_tokens_of_a_secret_are_hidden() -> None:
    request = Interaction(
        1, "call", "llm", "tokenize", {"inputString": "password=x"}, [Event("result", {"tokens": [7]})]
    )
    found = recorded(request)
    assert found is not None
    assert found.result == {"tokens": [0]}


@pytest.mark.parametrize("value", KEPT, ids=str)
def test_what_is_no_secret_stays(value: object) -> None:
    assert redact(value) == value


def test_the_home_of_this_user_is_hidden_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/data/me"))
    assert redact("/data/me/x.txt, not /data/mean/x.txt") == "~/x.txt, not /data/mean/x.txt"


def test_files_are_replaced_by_their_hash() -> None:
    upload = {"name": "cat.png", "contentBase64": "aGVsbG8="}
    hashed = redact(upload)
    assert redact(hashed) == hashed
    assert hashed["contentBase64"].startswith("sha256:")
    inline = {"type": "file", "identifier": "base64:aGVsbG8="}
    hidden = f"base64:{hashed['contentBase64']}"
    assert redact([inline, inline["identifier"]]) == [{**inline, "identifier": hidden}, hidden]
