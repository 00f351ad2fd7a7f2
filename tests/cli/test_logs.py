"""`logs`: what it prints of each kind of entry, and which entries it prints."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations._support.secrets import HIDDEN
from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.types.logs import LogEntry, parse_entry
from tests.cli.managed import Piped

STATS = {
    "stopReason": "eosFound",
    "tokensPerSecond": 40.52,
    "timeToFirstTokenSec": 0.314,
    "predictedTokensCount": 1,
}
RUNTIME = {"engineName": "llama.cpp", "engineVersion": "1", "engineType": "gguf"}
DATA: list[dict[str, Any]] = [
    {"type": "llm.prediction.input", "input": "a\n secret", "modelPath": "a/b", "modelIdentifier": "one"},
    {"type": "llm.prediction.output", "output": "a secret", "modelIdentifier": "two", "stats": STATS},
    {"type": "server.log", "content": "no\n14:00:00  server   fake", "level": "error"},
    {"type": "runtime.log", "level": "info", "message": "loaded", "modelIdentifier": "one", **RUNTIME},
    {"type": "llm.prediction.input", "input": ["a secret"]},
    {"type": "other", "level": "error"},
]

LINES = """\
model    one: prompt of 9 characters
model    two: response of 8 characters, 1 token, 40.5 tokens/s, first token after 0.31 s, eosFound
server   error: no
    14:00:00  server   fake
runtime  llama.cpp: loaded
model    llm.prediction.input: 55 characters
other    other: 35 characters
"""

WITH_PROMPTS = """\
model    one: prompt of 9 characters
    a
     secret
model    two: response of 8 characters, 1 token, 40.5 tokens/s, first token after 0.31 s, eosFound
    a secret
server   error: no
    14:00:00  server   fake
runtime  llama.cpp: loaded
model    llm.prediction.input: 55 characters
    {"type": "llm.prediction.input", "input": ["a secret"]}
other    other: 35 characters
    {"type": "other", "level": "error"}
"""


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each client have a log that ends."""

    def logs(_client: Client) -> Iterator[LogEntry]:
        yield from (parse_entry({"timestamp": time, "data": data}) for time, data in enumerate(DATA))

    monkeypatch.setattr(Client, "logs", logs)


@pytest.mark.parametrize(("flags", "expected"), [((), LINES), (("--prompts",), WITH_PROMPTS)])
def test_each_entry_is_a_line_and_its_text_is_private(piped: Piped, flags: tuple[str, ...], expected: str) -> None:
    status, out, _ = piped("logs", *flags)
    assert status == 0
    assert re.sub(r"^\d\d:\d\d:\d\d  ", "", out, flags=re.MULTILINE) == expected


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ((), range(6)),
        (("--source", "model"), (0, 1, 4)),
        (("--source", "runtime", "--source", "server"), (2, 3)),
        (("--model", "one"), (0, 3)),
        (("--model", "one", "--source", "model"), (0,)),
    ],
)
def test_only_what_was_requested_is_printed(piped: Piped, flags: tuple[str, ...], shown: range) -> None:
    _, out, _ = piped("logs", "--json", *flags)
    assert [json.loads(line)["timestamp"] for line in out.splitlines()] == list(shown)


def test_json_has_texts_only_with_prompts(piped: Piped) -> None:
    _, without, _ = piped("logs", "--json")
    first, second, *_ = map(json.loads, without.splitlines())
    assert "secret" not in without
    assert first == {
        "timestamp": 0,
        "type": "llm.prediction.input",
        "inputCharacters": 9,
        "modelPath": "a/b",
        "modelIdentifier": "one",
    }
    assert (second["outputCharacters"], second["stats"]) == (8, STATS)
    first, *_ = map(json.loads, piped("logs", "--json", "--prompts")[1].splitlines())
    assert first["input"] == "a\n secret"


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028"])
@pytest.mark.parametrize(
    "data",
    [
        {"type": "server.log", "level": "warnX", "content": "no"},
        {"type": "server.log", "level": "warn", "content": "noX"},
        {"type": "otherX"},
        {"type": "llm.prediction.input", "input": "X", "modelPath": "", "modelIdentifier": "X"},
        {"type": "llm.prediction.output", "output": "", "modelIdentifier": "", "stats": {"stopReason": "X"}},
    ],
)
def test_no_text_looks_like_an_entry(
    monkeypatch: pytest.MonkeyPatch, piped: Piped, data: dict[str, Any], end: str
) -> None:
    forged = json.loads(json.dumps(data).replace("X", json.dumps(f"{end}14:00:00  server   fake")[1:-1]))
    monkeypatch.setattr(Client, "logs", lambda _client: iter([parse_entry({"timestamp": 0, "data": forged})]))
    _, *further = piped("logs", "--prompts")[1].splitlines()
    assert all(line.startswith("    ") for line in further)


TOKEN = "sk-lm-abcdefgh:abcdefghij0123456789"


@pytest.mark.parametrize("flags", [(), ("--json",)])
@pytest.mark.parametrize(
    "data",
    [
        {"type": "server.log", "level": f"warn {TOKEN}", "content": f"Authorization: Bearer\n{TOKEN}"},
        {"type": f"other {TOKEN}", TOKEN: [TOKEN]},
        {"type": "llm.prediction.input", "input": f"a\n{TOKEN}", "modelPath": TOKEN, "modelIdentifier": TOKEN},
        {"type": "llm.prediction.output", "output": "", "modelIdentifier": "", "stats": {"stopReason": TOKEN}},
        {"type": "runtime.log", "level": "info", "message": TOKEN, **RUNTIME},
    ],
)
def test_tokens_are_hidden(
    monkeypatch: pytest.MonkeyPatch, piped: Piped, data: dict[str, Any], flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Client, "logs", lambda _client: iter([parse_entry({"timestamp": 0, "data": data})]))
    _, out, _ = piped("logs", "--prompts", *flags)
    assert HIDDEN in out
    assert TOKEN[-10:] not in out


def test_json_has_no_numbers_that_are_not_finite(monkeypatch: pytest.MonkeyPatch, piped: Piped) -> None:
    entry = parse_entry({"timestamp": math.inf, "data": {"type": "other", "numbers": [math.nan, 1.5]}})
    monkeypatch.setattr(Client, "logs", lambda _client: iter([entry]))
    shown = json.loads(piped("logs", "--prompts", "--json")[1])
    assert (shown["timestamp"], shown["data"]["numbers"]) == (None, [None, 1.5])


def test_ctrl_c_ends_it_like_any_command(monkeypatch: pytest.MonkeyPatch, piped: Piped) -> None:
    def logs(_client: Client) -> Iterator[LogEntry]:
        yield parse_entry({"timestamp": 1e300, "data": DATA[3]})
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "logs", logs)
    status, out, err = piped("logs")
    assert (status, out) == (130, "??:??:??  runtime  llama.cpp: loaded\n")
    assert "Traceback" not in err
