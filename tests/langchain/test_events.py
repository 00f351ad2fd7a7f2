"""Event streaming: our events are those that core makes of our chunks, and their message is the one of a call."""

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


class Bridged(Replay):
    """Leaves it to core to make events of the chunks."""


for hook in ("_stream_chat_model_events", "_astream_chat_model_events"):
    setattr(Bridged, hook, None)  # in the body, pydantic would take it for a private attribute

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


def comparable(events: list[Any]) -> list[Any]:
    """Return events without the streamed arguments of calls, for which older versions of core have other forms."""
    found: list[Any] = []
    for event in events:
        match event:
            case {"delta": {"type": "tool-call-delta" | "block-delta"}}:
                pass
            case {"event": "content-block-start", "content": content}:
                found.append({**event, "content": {**content, "index": None}})
            case {"event": "message-finish", "metadata": metadata}:  # core does this since 1.8.4
                reasons = ("finish_reason", "normalized_finish_reason")
                found.append({**{name: metadata[name] for name in reasons if name in metadata}, **event})
            case _:
                found.append(event)
    return found


@pytest.mark.sampled(14)
@both_ways
@of_each_kind
def test_events_are_those_that_core_makes_of_the_chunks(kind: str, *, asynchronous: bool) -> None:
    model = Replay(events=KINDS[kind], alternatives=1)
    ours, _ = events_of(model, asynchronous=asynchronous)
    cores, _ = events_of(Bridged(events=KINDS[kind], alternatives=1), asynchronous=asynchronous)
    assert_valid_event_stream(ours)
    arguments = [event["delta"]["args"] for event in ours if "args" in event.get("delta", {})]
    assert arguments == [call["args"] for chunk in model.stream("q") for call in chunk.tool_call_chunks if call["args"]]
    logged = [events[-1]["metadata"].pop("logprobs", None) for events in (ours, cores)]
    assert comparable(ours) == comparable(cores)
    if kind == "log-probabilities":  # of which core keeps those of the last chunk alone
        assert [len(each["content"]) for each in logged] == [3, 1]


@pytest.mark.sampled(28)
@both_ways
@of_each_kind
@pytest.mark.parametrize("settings", [{}, {"parallel": False}])
def test_the_message_is_that_of_a_call(kind: str, settings: dict[str, Any], *, asynchronous: bool) -> None:
    model = Replay(events=KINDS[kind], alternatives=1, output_version="v1", **settings)
    _, message = events_of(model, asynchronous=asynchronous)
    whole = model.invoke("q", RUN)
    assert message.response_metadata == {**whole.response_metadata, "output_version": "v1"}
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
