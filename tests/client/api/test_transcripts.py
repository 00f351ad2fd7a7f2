"""The transcripts of docs/protocol.md (#transcripts), held by the whole client over a socket."""

import json
from typing import Any

import pytest

import lmstudio_integrations as lms
from tests.client.transcript_server import reading
from tests.protocol.transcripts import (
    ANY_MODEL_CANCEL_UNLOAD,
    AUTHENTICATION,
    COMPLETE_ON_AN_OLD_SERVER,
    LIST_LOAD_RESPOND_UNLOAD,
    TOOL_ROUND,
    Line,
    lines_of,
)

LOADED = [*lines_of(AUTHENTICATION), *lines_of(LIST_LOAD_RESPOND_UNLOAD)[2:7]]
"""The frames of a client that connects and gets a model."""


def test_the_client_lists_loads_responds_and_unloads_word_for_word() -> None:
    reported: list[float] = []
    lines = lines_of(AUTHENTICATION + LIST_LOAD_RESPOND_UNLOAD)
    # Unlike the Python SDK, this client names the device of what it unloads, as the TypeScript SDK does.
    lines[-2].frame["parameter"]["deviceIdentifier"] = None
    with reading(lines) as host, lms.Client(host) as client:
        assert client.llm.list_loaded() == []
        model = client.llm.model("m1", on_load_progress=reported.append)
        result = model.respond("hi")
        model.unload()
    assert reported == [0.0, 0.5, 1.0]
    assert (result.content, result.stats.stop_reason) == ("Hello", "eosFound")


def _as_this_client_sends_it(line: Line) -> Line | None:
    """Translate a frame of the TypeScript SDK: this client names models by identifier and unloads without a lookup."""
    if line.frame.get("callId") == 2:
        return None
    text = json.dumps(line.frame)
    text = text.replace(
        '{"type": "instanceReference", "instanceReference": "ref-a"}',
        '{"type": "query", "query": {"identifier": "a"}}',
    )
    return Line(line.by, json.loads(text)) if line.by == "client" else line


def test_the_client_uses_any_loaded_model_cancels_and_unloads() -> None:
    lines = [_as_this_client_sends_it(line) for line in lines_of(AUTHENTICATION + ANY_MODEL_CANCEL_UNLOAD)]
    with reading([line for line in lines if line is not None]) as host, lms.Client(host) as client:
        model = client.llm.model()
        stream = model.respond_stream("hi")
        assert next(stream).content == "Hel"
        stream.cancel()
        result = stream.wait_for_result()
        model.unload()
    assert (result.content, result.stats.stop_reason) == ("Hel", "userStopped")


@pytest.mark.leaf
def test_the_client_plays_a_round_of_tools_word_for_word() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    with reading([*LOADED, *_later(lines_of(TOOL_ROUND))]) as host, lms.Client(host) as client:
        model = client.llm.model("m1")
        tool: Any = {
            "name": "add",
            "description": "add numbers",
            "parameters": {"a": int, "b": int},
            "implementation": add,
        }
        result = model.act("hi", [tool])
    assert result.rounds == 2


def _later(lines: list[Line]) -> list[Line]:
    """Return frames whose ids come after those of an earlier transcript."""
    return [Line(by, {**frame, "channelId": frame["channelId"] + 10}) for by, frame in lines]


# Old servers, and loads that are cancelled ----------------------------------------------------------------------------

CANCEL = """
> {"type":"channelSend","channelId":1,"message":{"type":"cancel"}}
"""


def test_a_server_without_raw_completion_gets_the_old_request() -> None:
    with reading([*LOADED, *lines_of(COMPLETE_ON_AN_OLD_SERVER)]) as host, lms.Client(host) as client:
        assert client.llm.model("m1").complete("once upon").content == "Hello"


def test_a_load_whose_caller_fails_is_cancelled_on_the_server() -> None:
    def fail(_progress: float) -> None:
        raise ZeroDivisionError

    failed = pytest.raises(ZeroDivisionError)
    with reading([*LOADED[:-3], *lines_of(CANCEL)]) as host, lms.Client(host) as client, failed:
        client.llm.model("m1", on_load_progress=fail)
