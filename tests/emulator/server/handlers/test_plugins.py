"""Plugins: sessions with their tools, what Python functions do in a call, and messages of generators."""

import asyncio
import concurrent.futures
import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lmstudio_integrations import PredictionEvent, ToolCallContext
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.errors import SAMPLE, WireError
from lmstudio_integrations.emulator.models.plugins import ReportingContext, call_function, parse_functions
from lmstudio_integrations.emulator.server.handlers.plugins import encode_generated
from tests.emulator.bare_client import TIMEOUT, Wire, wire
from tests.protocol.test_prediction import PACKETS

pytestmark = pytest.mark.leaf

DIRECT: dict[str, Any] = {"type": "direct", "config": {"fields": []}}
SUMS, MORE, WRITER = "mcp/sums", "mcp/more", "me/writer"


class Tools:
    """The functions of a plugin, and what a test waits for."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()
        self.cancelled: bool | None = None

    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    async def make(self, what: str) -> Any:
        """Return something."""
        return {
            "nothing": None,
            "dataclass": dataclasses.make_dataclass("Point", ["x"])(1),
            "infinity": float("inf"),
            "surrogate": "\ud800",
        }[what]

    def report(self, context: ToolCallContext) -> None:
        """Report from a thread."""
        context.status("one")
        context.warn("two")
        context.status("three")

    def later(self, context: ToolCallContext) -> Any:
        """Return something to await."""

        async def report() -> str:
            context.status("one")
            return "later"

        return report()

    def fail(self, kind: str) -> Any:
        """Fail in some way."""
        if kind == "exit":
            sys.exit("enough")
        if kind == "no JSON":
            return object()
        if kind == "too deep":
            value: list[Any] = []
            for _ in range(1000):
                value = [value]
            return value
        raise {
            "text": LookupError("nothing there"),
            "no text": ValueError(),
            "stop": StopIteration("stopped"),
            "cancelled": asyncio.CancelledError(),
            "future": concurrent.futures.CancelledError(),
        }[kind]

    def wait(self, context: ToolCallContext) -> str:
        """Wait, then report."""
        self.entered.set()
        self.may_end.wait(TIMEOUT)
        self.cancelled = context.cancelled
        context.status("too late")
        self.ended.set()
        return "done"

    async def wait_async(self) -> None:
        """Wait until it is cancelled."""
        self.entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()

    @property
    def all(self) -> list[Callable[..., Any]]:
        """The functions."""
        names = "add make report later fail wait wait_async"
        return [getattr(self, name) for name in names.split()]


RULES = [
    {"when": {"last": "^Think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
    {"when": {"last": "^Fail"}, "then": [{"text": "So far"}, {"error": "It went wrong", "cause": "A rule"}]},
    {"when": {"last": "^Wait"}, "then": [{"text": "One"}, {"fault": "stall"}]},
]


@pytest.fixture
def tools() -> Iterator[Tools]:
    found = Tools()
    yield found
    found.may_end.set()


@pytest.fixture
def server(tools: Tools) -> Iterator[Emulator]:
    functions: dict[str, Any] = {SUMS: tools.all, WRITER: {"generator": True, "rule": RULES}, MORE: [tools.add]}
    with Emulator([], plugins=functions) as running:
        yield running


@pytest.fixture
def me(server: Emulator) -> Iterator[Wire]:
    with wire(server, "plugins") as opened:
        yield opened


def request(plugin: str, **specifier: Any) -> dict[str, Any]:
    return {"pluginIdentifier": plugin, "pluginConfigSpecifier": {**DIRECT, **specifier}}


class Session:
    """An open session."""

    def __init__(self, me: Wire, plugin: str = SUMS, **specifier: Any) -> None:
        self.me = me
        self.channel = me.open("startToolUseSession", request(plugin, **specifier))
        self.ready = self.receive()

    def receive(self) -> Any:
        """Return the next packet, or the frame that ends the channel."""
        frame = self.me.receive()
        assert frame["channelId"] == self.channel
        return frame.get("message", frame)

    def start(self, call_id: float, name: str, arguments: Any = None) -> None:
        """Start a call."""
        arguments = {} if arguments is None else arguments
        self.me.send(self.channel, {"type": "callTool", "callId": call_id, "name": name, "arguments": arguments})

    def abort(self, call_id: float) -> None:
        """Abort a call."""
        self.me.send(self.channel, {"type": "abortToolCall", "callId": call_id})

    def call(self, name: str, arguments: Any = None) -> list[Any]:
        """Call a tool, and return what comes of it up to the end."""
        self.start(7, name, arguments)
        packets = [self.receive()]
        while packets[-1]["type"] in {"toolCallStatus", "toolCallWarn"}:
            packets.append(self.receive())
        assert [packet.pop("callId") for packet in packets] == [7] * len(packets)
        return packets

    def error(self, name: str, arguments: Any = None) -> dict[str, Any]:
        """Call a tool, and return its error."""
        (end,) = self.call(name, arguments)
        assert end["type"] == "toolCallError"
        error: dict[str, Any] = end["error"]
        return error

    def discard(self) -> None:
        """End the session."""
        self.me.send(self.channel, {"type": "discardSession"})
        assert self.receive() == {"type": "channelClose", "channelId": self.channel}


@pytest.fixture
def session(me: Wire) -> Session:
    return Session(me)


def states(server: Emulator) -> list[str]:
    return [call.state for call in server.tool_calls]


def test_a_call_returns_the_result_as_json(session: Session) -> None:
    for name, arguments, result in (
        ("add", {"a": "2"}, 3),
        ("make", {"what": "nothing"}, None),
        ("make", {"what": "dataclass"}, {"x": 1}),
        ("make", {"what": "infinity"}, None),
        ("make", {"what": "surrogate"}, "\ud800"),
    ):
        assert session.call(name, arguments) == [{"type": "toolCallComplete", "result": result}]


FAILURES = {
    "text": "nothing there",
    "no text": "ValueError()",
    "stop": "stopped",
    "exit": "enough",
    "cancelled": "The tool was cancelled, but not by the client",
    "future": "CancelledError()",
    "no JSON": "The result of the tool cannot be written as JSON",
    "too deep": "The result of the tool cannot be written as JSON",
}
"""How a function fails, and the error of its call."""


def test_a_function_that_fails_is_an_error_with_its_text(server: Emulator, session: Session) -> None:
    for kind, title in FAILURES.items():
        assert session.error("fail", {"kind": kind})["title"] == title
        assert (server.tool_calls[-1].state, server.tool_calls[-1].error) == ("failed", title)
    assert session.call("add", {"a": 1})[0]["result"] == 2


@pytest.mark.parametrize(
    ("name", "arguments", "title", "cause"),
    [
        ("subtract", {}, 'The plugin "mcp/sums" has no tool "subtract"', "Its tools are add, make, "),
        ("add", {"a": "x"}, "Failed to parse arguments for tool add: a: ", None),
        ("add", [1], "The arguments of a tool must be an object", "They are [1]."),
    ],
)
def test_a_call_that_does_not_fit_is_an_error(
    session: Session, name: str, arguments: Any, title: str, cause: str | None
) -> None:
    error = session.error(name, arguments)
    assert error["title"].startswith(title)
    assert error.get("cause", "").startswith(cause or "")


def test_nothing_more_is_sent_for_an_aborted_call(
    server: Emulator, session: Session, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lmstudio_integrations.emulator")
    session.start(0, "wait")
    assert tools.entered.wait(TIMEOUT)
    session.abort(0)
    session.start(0, "add", {"a": 1})
    assert session.receive() == {"type": "toolCallComplete", "callId": 0, "result": 2}
    tools.may_end.set()
    assert tools.ended.wait(TIMEOUT)
    assert tools.cancelled
    assert session.call("add", {"a": 2}) == [{"type": "toolCallComplete", "result": 3}]
    assert states(server) == ["aborted", "ended", "ended"]
    assert "mcp/sums: wait aborted after " in caplog.text


def test_a_call_may_be_aborted_before_it_begins(server: Emulator, session: Session) -> None:
    session.start(0, "wait")
    session.abort(0)
    session.start(1, "add", {"a": 1})
    assert session.receive() == {"type": "toolCallComplete", "callId": 1, "result": 2}
    assert states(server) == ["aborted", "ended"]


def test_packets_about_unknown_and_running_calls_are_ignored(session: Session, server: Emulator, tools: Tools) -> None:
    session.abort(5)
    session.start(0, "wait")
    assert tools.entered.wait(TIMEOUT)
    session.start(0, "add", {"a": 1})
    session.start(0.5, "add", {"a": 2})
    assert session.receive() == {"type": "toolCallComplete", "callId": 0.5, "result": 3}
    tools.may_end.set()
    assert session.receive() == {"type": "toolCallStatus", "callId": 0, "statusText": "too late"}
    assert session.receive() == {"type": "toolCallComplete", "callId": 0, "result": "done"}
    session.abort(0)
    session.discard()
    assert states(server) == ["ended", "ended"]


def test_a_server_that_stops_waits_for_no_function(server: Emulator, session: Session, tools: Tools) -> None:
    session.start(0, "wait")
    assert tools.entered.wait(TIMEOUT)
    server.stop()
    assert states(server) == ["aborted"]
    tools.may_end.set()
    assert tools.ended.wait(TIMEOUT)


GENERATE = {"tools": [], "history": {"messages": []}}
OF_A_CHAT = {
    "pluginIdentifier": WRITER,
    "pluginConfigSpecifier": {"type": "predictionProcess", "pci": "a", "token": "b"},
}
LONG = f'Cannot find a plugin with the identifier "{"x" * 6144} [… 1808 characters omitted …] {"x" * 2048}"'


@pytest.mark.parametrize(
    ("endpoint", "parameter", "title"),
    [
        ("startToolUseSession", request("x" * 10_000), LONG),
        ("startToolUseSession", request(WRITER), 'The plugin "me/writer" has no tools: it is a generator'),
        ("generateWithGenerator", request("no/such") | GENERATE, 'Cannot find a plugin with the identifier "no/such"'),
        ("generateWithGenerator", request(SUMS) | GENERATE, 'The plugin "mcp/sums" is not a generator'),
        ("startToolUseSession", OF_A_CHAT, "This server does not support plugins of a prediction process"),
    ],
)
def test_what_cannot_be_used_is_an_error(me: Wire, endpoint: str, parameter: Any, title: str) -> None:
    (packet,) = me.stream(endpoint, parameter)
    assert packet["error"]["title"] == title


@pytest.mark.parametrize(
    ("identifiers", "cause"),
    [((), "This server has no plugins."), (tuple(f"a/{number}" for number in range(SAMPLE + 5)), "a/19 and 5 more.")],
)
def test_an_unknown_plugin_is_named_with_those_there_are(
    tools: Tools, identifiers: tuple[str, ...], cause: str
) -> None:
    with Emulator([], plugins={name: [tools.add] for name in identifiers}) as server, wire(server, "plugins") as me:
        (packet,) = me.stream("startToolUseSession", request("no/such"))
    assert packet["error"]["cause"].endswith(cause)


def test_calls_report_in_order_and_are_recorded_as_plain_data(
    server: Emulator, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lmstudio_integrations.emulator")
    packets = [*session.call("report"), *session.call("later")]
    reports: list[tuple[str, str | None]] = [
        ("toolCallStatus", "one"),
        ("toolCallWarn", "two"),
        ("toolCallStatus", "three"),
    ]
    reports += [("toolCallComplete", None), ("toolCallStatus", "one"), ("toolCallComplete", "later")]
    assert [tuple(packet.values()) for packet in packets] == reports
    session.call("add", {"a": 2, "b": 3})
    session.error("fail", {"kind": "text"})
    _, _, added, failed = map(dataclasses.asdict, server.tool_calls)
    assert json.loads(json.dumps(added)) == {
        "plugin": SUMS,
        "tool": "add",
        "client": "guest:me",
        "arguments": {"a": 2, "b": 3},
        "state": "ended",
        "result": 5,
        "error": None,
    }
    assert (failed["state"], failed["error"], failed["result"]) == ("failed", "nothing there", None)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" after ")[0] for line in lines] == [
        "mcp/sums: report ended",
        "mcp/sums: later ended",
        "mcp/sums: add ended",
        "mcp/sums: fail failed",
    ]
    assert lines[3].endswith(" s: nothing there")


@pytest.mark.parametrize("error", [KeyboardInterrupt, pytest.fail.Exception, StopIteration])
async def test_whatever_an_async_function_raises_is_the_text_of_its_call(error: type[BaseException]) -> None:
    async def fail(context: ToolCallContext) -> None:
        """Report, then fail."""
        context.status("x" * 100_000)
        raise error("it broke")

    packets: list[dict[str, Any]] = []
    function, context = parse_functions([fail])["fail"], ReportingContext("fail", 0, packets.append)
    with pytest.raises(WireError, match=r"it broke|raised StopIteration"):
        await call_function(function, {}, context)
    (packet,) = packets
    assert packet["type"] == "toolCallStatus"
    assert len(packet["statusText"]) < 10_000


# Generators


def generate(text: str) -> dict[str, Any]:
    history = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    return request(WRITER) | {"tools": [], "history": history}


def test_a_generator_writes_by_its_rules_and_ends_without_stats(server: Emulator, me: Wire) -> None:
    packets = me.stream("generateWithGenerator", generate("Think"))
    assert [packet["progress"] for packet in packets if packet["type"] == "promptProcessingProgress"] == [0, 1]
    fragments = [packet["fragment"] for packet in packets if packet["type"] == "fragment"]
    assert "".join(each["content"] for each in fragments) == "<think>Let me see.</think>Done."
    assert {each["reasoningType"] for each in fragments} >= {"reasoning", "none"}
    assert packets[-1] == {"type": "success"}
    (record,) = server.predictions
    assert (record.model, record.reasoning, record.text) == (WRITER, "Let me see.", "Done.")
    assert (record.state, record.stop_reason, record.stats) == ("ended", "eosFound", {})


def test_a_generator_that_fails_fails_the_channel(server: Emulator, me: Wire) -> None:
    *_, end = me.stream("generateWithGenerator", generate("Fail"))
    assert end["error"] == {"title": "It went wrong", "rootTitle": "It went wrong", "cause": "A rule"}
    (record,) = server.predictions
    assert (record.text, record.stop_reason, record.error) == ("So far", "error", "It went wrong")


def test_a_generator_is_cancelled_with_success(server: Emulator, me: Wire) -> None:
    channel = me.open("generateWithGenerator", generate("Wait"))
    packets = me.packets(channel)
    while next(packets)["type"] != "fragment":
        pass
    me.send(channel, {"type": "cancel"})
    assert list(packets) == [{"type": "success"}]
    (record,) = server.predictions
    assert (record.text, record.stop_reason) == ("One", "userStopped")


def test_the_record_of_a_client_that_vanishes_says_so(server: Emulator) -> None:
    with wire(server, "plugins") as me:
        me.open("generateWithGenerator", generate("Wait"))
        server.wait_for(lambda: any(each.fragments for each in server.predictions), TIMEOUT)
    server.wait_for(lambda: [each.stop_reason for each in server.predictions] == ["disconnected"], TIMEOUT)


@pytest.mark.parametrize(("packet", "event"), PACKETS, ids=lambda value: str(value)[:40])
def test_packets_of_a_generator_have_neither_stats_nor_errors_nor_raw_content(
    packet: dict[str, Any], event: PredictionEvent
) -> None:
    members = packet.keys() - {"argumentsFormat", "rawContent", "error"} if packet["type"] != "success" else {"type"}
    assert encode_generated(event) == {name: packet[name] for name in members}
