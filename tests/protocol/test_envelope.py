"""Frames as text: exactly the members that the description lists, and JSON whatever the value."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.protocol import envelope


@pytest.mark.parametrize(
    ("make", "frame"),
    [
        (
            lambda: envelope.auth('a"b', "p"),
            {"authVersion": 1, "clientIdentifier": 'a"b', "clientPasskey": "p"},
        ),
        (lambda: envelope.rpc_call("e", 1, None), {"type": "rpcCall", "endpoint": "e", "callId": 1}),
        (
            lambda: envelope.rpc_call("e", 1, "{}"),
            {"type": "rpcCall", "endpoint": "e", "callId": 1, "parameter": {}},
        ),
        (lambda: envelope.channel_create("e", 2, None), {"type": "channelCreate", "endpoint": "e", "channelId": 2}),
        (
            lambda: envelope.channel_create("e", 2, "[]"),
            {"type": "channelCreate", "endpoint": "e", "channelId": 2, "creationParameter": []},
        ),
        (
            lambda: envelope.channel_send(3, '{"type":"cancel"}'),
            {"type": "channelSend", "channelId": 3, "message": {"type": "cancel"}},
        ),
        (lambda: envelope.channel_close(4), {"type": "channelClose", "channelId": 4}),
        (lambda: envelope.channel_error(5, "{}"), {"type": "channelError", "channelId": 5, "error": {}}),
        (lambda: envelope.rpc_result(6, None), {"type": "rpcResult", "callId": 6}),
        (lambda: envelope.rpc_result(6, "7"), {"type": "rpcResult", "callId": 6, "result": 7}),
        (lambda: envelope.rpc_error(8, "{}"), {"type": "rpcError", "callId": 8, "error": {}}),
        (
            lambda: envelope.warning("hm", "unknown"),
            {"type": "communicationWarning", "warning": "hm", "kind": "unknown"},
        ),
        (lambda: envelope.KEEP_ALIVE_ACK, {"type": "keepAliveAck"}),
    ],
)
def test_a_frame_has_exactly_the_members_of_the_specification(make: Callable[[], str], frame: dict[str, Any]) -> None:
    assert json.loads(make()) == frame


@pytest.mark.parametrize(
    "value", [None, True, 1, 1.5, "ä€😀", [1, {"a": []}], {"lone": "\ud83d"}, {"\ud83d": ["\udc00x"]}]
)
def test_any_json_value_survives_a_round_trip(value: Any) -> None:
    assert json.loads(dumps(value)) == value


def test_infinity_and_nan_become_null_as_in_javascript() -> None:
    assert json.loads(dumps([float("inf"), float("-inf"), float("nan")])) == [None, None, None]
    beside_a_surrogate = {"a": ["\ud800", float("inf"), 1.5]}
    assert json.loads(dumps(beside_a_surrogate)) == {"a": ["\ud800", None, 1.5]}


@pytest.mark.parametrize(
    ("data", "value", "used_fallback"),
    [
        ('{"a":1}', {"a": 1}, False),
        (b'{"a":1}', {"a": 1}, False),
        ('{"a":"\\ud83d"}', {"a": "\ud83d"}, True),
        ('{"a":"\ud83d"}', {"a": "\ud83d"}, True),
        ("[1]", None, False),
        ("", None, True),
        (b"", None, True),
        ("{", None, True),
        (b'{"a":"\xff"}', None, True),
        (b"\x00\x01\x02", None, True),
        ("[" * 100_000, None, True),
    ],
)
def test_parsing_never_raises_and_reports_the_fallback_parser(
    data: str | bytes, value: dict[str, Any] | None, used_fallback: bool
) -> None:
    assert envelope.parse(data) == (value, used_fallback)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_only_utf8_is_json(encoding: str) -> None:
    data = '{"callId":1,"a":["\\"",1,1]}'.encode(encoding)
    assert envelope.parse(data) == (None, True)
    assert envelope.diagnose(data) is not None


def test_utf8_may_begin_with_a_bom() -> None:
    data = '{"a":"ä"}'.encode("utf-8-sig")
    assert envelope.parse(data) == ({"a": "ä"}, True)
    assert envelope.diagnose(data) is None


@pytest.mark.parametrize(
    ("text", "depth"),
    [("1", 0), ("[]", 1), ('{"a":[{}]}', 3), ("[[],[],[[]]]", 3), ('["[[\\"[["]', 1), ('"[[', 0), ('"\ud800"', 0)],
)
def test_brackets_in_strings_do_not_count_as_nesting(text: str, depth: int) -> None:
    for data in (text, text.encode("utf-8", "surrogatepass")):
        assert not envelope.is_deeper(data, depth)
        assert depth == 0 or envelope.is_deeper(data, depth - 1)


def test_a_frame_beyond_the_depth_limit_never_reaches_the_recursive_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def meet(*_: object) -> None:
        raise AssertionError("the process may end here, where its recursion limit is high")

    monkeypatch.setattr(json, "loads", meet)
    with pytest.raises(envelope.NestingError):
        envelope.parse('{"a":' * 100_000 + "}" * 100_000, max_depth=200)
