"""Event streaming: the events that core makes of our chunks are valid, and their message is the one of a call."""

import asyncio
import gc
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from lmstudio_integrations.errors import LMStudioServerError
from tests.langchain.conftest import Server
from tests.langchain.replay import KINDS, RESENT, Replay, end

RUN: Any = {"run_id": UUID(int=7)}

of_each_kind = pytest.mark.parametrize("kind", KINDS)
both_ways = pytest.mark.parametrize("asynchronous", [False, True])


def events_of(model: Any, prompt: str = "q", *, asynchronous: bool) -> tuple[list[Any], AIMessage]:
    """Return the events of a response and its message."""
    if not asynchronous:
        stream = model.stream_events(prompt, RUN, version="v3")
        return list(stream), stream.output

    async def collected() -> tuple[list[Any], AIMessage]:
        stream = await model.astream_events(prompt, RUN, version="v3")
        return [event async for event in stream], await stream.output

    return asyncio.run(collected())


@pytest.mark.sampled(28)
@both_ways
@of_each_kind
@pytest.mark.parametrize("settings", [{}, {"parallel": False}])
def test_the_message_is_that_of_a_call(kind: str, settings: dict[str, Any], *, asynchronous: bool) -> None:
    model = Replay(events=KINDS[kind], alternatives=1, output_version="v1", **settings)
    events, message = events_of(model, asynchronous=asynchronous)
    assert_valid_event_stream(events)
    whole = model.invoke("q", RUN)
    metadata = {**whole.response_metadata, "output_version": "v1"}
    if kind == "log-probabilities":  # of which core keeps those of the last chunk alone
        metadata["logprobs"] = {"content": metadata["logprobs"]["content"][-1:]}
    assert message.response_metadata == metadata
    for name in ("text", "tool_calls", "usage_metadata", "additional_kwargs"):
        assert getattr(message, name) == getattr(whole, name), name
    tags_or_not = {"index": None, "extras": None}  # a thought has its tags only where it is a block as a whole
    blocks = [
        [{**block, **tags_or_not} for block in each.content_blocks if block["type"] != "invalid_tool_call"]
        for each in (message, whole)
    ]
    assert blocks[0] == blocks[1]
    if kind != RESENT:  # in a stream, the first try cannot be taken back
        invalid = [[(each["name"], each["id"]) for each in it.invalid_tool_calls] for it in (message, whole)]
        assert invalid[0] == invalid[1]


def test_without_usage_no_event_has_it() -> None:
    silent = end()
    silent.stats = {"stopReason": "eosFound"}
    events, message = events_of(Replay(events=[*KINDS["text"][:-1], silent]), asynchronous=False)
    assert "usage" not in events[-1]
    assert message.usage_metadata is None


# On a server ----------------------------------------------------------------------------------------------------------


@both_ways
def test_deltas_are_the_fragments_that_arrive(server: Server, *, asynchronous: bool) -> None:
    events, message = events_of(server.chat(), "think", asynchronous=asynchronous)
    deltas = [event["delta"] for event in events if event["event"] == "content-block-delta"]
    assert [delta["reasoning"] for delta in deltas if "reasoning" in delta] == ["Let", " me", " see."]
    assert [delta["text"] for delta in deltas if "text" in delta] == ["Done."]
    assert message.id == events[0]["id"] == f"lc_run--{RUN['run_id']}"


class Recorder(BaseCallbackHandler):
    """Records texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_stream_event(self, event: Any, **_: Any) -> None:
        self.texts.append(event.get("delta", {}).get("text", ""))


@both_ways
def test_an_error_comes_after_what_was_generated(server: Server, *, asynchronous: bool) -> None:
    recorder = Recorder()
    model = server.chat(callbacks=[recorder])
    with pytest.raises(LMStudioServerError, match="the engine gave up"):
        events_of(model, "break", asynchronous=asynchronous)
    assert "".join(recorder.texts) == "so far "


async def test_closing_the_events_stops_the_server(server: Server) -> None:
    async with await server.chat().astream_events("for ever", version="v3") as stream:
        async for _ in stream.text:
            break
    await asyncio.to_thread(server.wait_for, lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"


def test_dropping_the_events_stops_the_server(server: Server) -> None:
    """Core's stream cannot be closed, and holds itself: it is left when the garbage collector finds it."""
    stream = server.chat().stream_events("for ever", version="v3")
    assert next(iter(stream.text))
    del stream
    gc.collect()
    server.wait_for(lambda: server.predictions[0].state == "ended")
    assert server.predictions[0].stop_reason == "userStopped"
