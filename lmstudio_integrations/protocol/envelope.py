"""Frames: one JSON object each, composed from text that is serialised already (protocol §2.1, §3.1, §3.2).

A caller turns its own parameter into JSON, because that may be megabytes; the thread that owns the session
only puts the envelope round it.
"""

import json
import re
from typing import Any

from pydantic_core import from_json, to_json

from lmstudio_integrations._narrow import is_object

AUTH_VERSION = 1
MAX_WARNINGS = 5
"""Warnings that one side sends per connection; then it goes silent (protocol §3.6)."""


def dumps(value: Any) -> str:
    """Return a value as JSON text; lone surrogates are escaped, and what is no finite number becomes null."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except ValueError:
        # Once more without what is no finite number; only a round trip replaces it everywhere.
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, separators=(",", ":"))


def parse(data: str | bytes, *, max_depth: int | None = None) -> tuple[dict[str, Any] | None, bool]:
    """Read a frame.

    Args:
        data: The JSON text.
        max_depth: How deeply it may be nested, if that is limited.

    Returns:
        The object, or `None` if it is none; and whether it took the slow parser, which alone lets lone
        surrogates and deep nesting through.
    """
    try:
        value, slow = from_json(data), False
    except (ValueError, TypeError):  # the latter for text that no UTF-8 can carry
        if max_depth is not None and is_deeper(data, max_depth):
            return None, True  # the slow parser is recursive, and ends the process where the recursion limit is high
        try:
            value, slow = json.loads(data), True
        except (ValueError, RecursionError):
            return None, True
    return (value if is_object(value) else None), slow


_BRACKET = re.compile(rb'[\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A bracket, or a string, whose brackets do not count; possessive, so that no byte is looked at twice."""


def is_deeper(data: str | bytes, limit: int) -> bool:
    """Return whether a JSON text has more levels than this, without parsing it."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    depth = 0
    for token in _BRACKET.finditer(text):
        sign = text[token.start()]
        depth += (sign in b"[{") - (sign in b"]}")
        if depth > limit:
            return True
    return False


def auth(identifier: str, passkey: str) -> str:
    """Return the first frame of a connection."""
    return dumps({"authVersion": AUTH_VERSION, "clientIdentifier": identifier, "clientPasskey": passkey})


def auth_result(error: str | None) -> str:
    """Return the server's answer to the first frame."""
    return '{"success":true}' if error is None else dumps({"success": False, "error": error})


def rpc_call(endpoint: str, call_id: int, parameter: str | None) -> str:
    """Return the frame of a call; a void parameter is left out."""
    return f'{{"type":"rpcCall","endpoint":"{endpoint}","callId":{call_id}{_member("parameter", parameter)}}}'


def channel_create(endpoint: str, channel_id: int, parameter: str | None) -> str:
    """Return the frame that opens a channel; a void parameter is left out."""
    tail = _member("creationParameter", parameter)
    return f'{{"type":"channelCreate","endpoint":"{endpoint}","channelId":{channel_id}{tail}}}'


def channel_send(channel_id: int, message: str) -> str:
    """Return the frame of a packet on a channel, in either direction."""
    return f'{{"type":"channelSend","channelId":{channel_id},"message":{message}}}'


def channel_close(channel_id: int) -> str:
    """Return the frame that ends a channel normally."""
    return f'{{"type":"channelClose","channelId":{channel_id}}}'


def channel_error(channel_id: int, error: str) -> str:
    """Return the frame that ends a channel with an error."""
    return f'{{"type":"channelError","channelId":{channel_id},"error":{error}}}'


def rpc_result(call_id: int, result: str | None) -> str:
    """Return the answer to a call; a void result is left out, never null (protocol §0)."""
    return f'{{"type":"rpcResult","callId":{call_id}{_member("result", result)}}}'


def rpc_error(call_id: int, error: str) -> str:
    """Return the answer to a call that failed."""
    return f'{{"type":"rpcError","callId":{call_id},"error":{error}}}'


def warning(text: str, kind: str) -> str:
    """Return a communication warning."""
    return dumps({"type": "communicationWarning", "warning": text, "kind": kind})


KEEP_ALIVE_ACK = '{"type":"keepAliveAck"}'


def _member(name: str, value: str | None) -> str:
    return "" if value is None else f',"{name}":{value}'
