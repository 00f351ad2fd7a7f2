"""Frames: one JSON object each, composed of text that is serialized already (docs/protocol.md#framing); and API tokens.

A caller turns its own parameter into JSON, because that may be megabytes; the thread that owns the session only puts
the envelope around it. Used by both sessions. A token is sent in two halves (docs/protocol.md#credentials).
"""

import json
import re
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json, to_json  # noqa: TID251 - `ensure_writable` needs what it rejects

from lmstudio_integrations._support.secrets import TOKEN_PREFIX
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import is_list, is_object

TOKEN_FORM = f"{TOKEN_PREFIX}, 8 letters or digits, a colon, and 20 more"
"""The form of a token, for error messages."""

_TOKEN = TOKEN_PREFIX + r"(?P<identifier>[A-Za-z0-9]{8}):(?P<passkey>[A-Za-z0-9]{20})"


def split_token(token: str) -> tuple[str, str] | None:
    """Return the client identifier and the passkey of a token; `None` if it has another form."""
    # As in the official Python SDK, surrounding whitespace does not count (docs/protocol.md#credentials).
    match = re.fullmatch(_TOKEN, token.strip())
    return (match["identifier"], match["passkey"]) if match else None


AUTH_VERSION = 1
MAX_WARNINGS = 5
"""Warnings that one side sends per connection; after them it sends none (docs/protocol.md#warnings)."""

DEEPEST = 100
"""Levels of nesting that `sanitize` accepts: JSON, copies and tracers all recurse, some of them in Python."""


class NestingError(ValueError):
    """A frame is nested too deeply."""


def parse(data: str | bytes, *, max_depth: int | None = None) -> tuple[dict[str, Any] | None, bool]:
    """Read a frame.

    Args:
        data: The JSON text.
        max_depth: Nesting limit of what the fallback parser reads, if there is one.

    Returns:
        The object, or `None` if the frame is anything else; and whether the fallback parser was needed. It is slow, and
        it alone accepts lone surrogates and deep nesting.

    Raises:
        NestingError: If the frame is nested more deeply than `max_depth`.
    """
    try:
        value, used_fallback = from_json(data), False
    except (ValueError, TypeError):  # the latter for text that UTF-8 cannot represent
        # The fallback parser is recursive, and ends the process where the recursion limit is high.
        if max_depth is not None and is_deeper(data, max_depth):
            raise NestingError from None
        try:
            value, used_fallback = _fallback_parsed(data), True
        except (ValueError, RecursionError):
            return None, True
    # JSON that is not an object is no frame, and is dropped without a reply (docs/protocol.md#unreadable-frames).
    # No call of `is_object`, because this runs for every token.
    return (value if isinstance(value, dict) else None), used_fallback  # pyright: ignore[reportUnknownVariableType] - of `Any`


def _fallback_parsed(data: str | bytes) -> Any:
    # `json.loads` itself would also read bytes as UTF-16 and UTF-32, in which `is_deeper` and the server's limit of
    # values see other strings than the parser.
    return json.loads(data if isinstance(data, str) else data.decode("utf-8-sig", "surrogatepass"))


_ID = rb'"(channelId|callId)"\s*:\s*(\d{1,15})\b'
_HEAD = 512
"""Bytes in which the id of a frame is searched: LM Studio writes it before the payload."""


class Damage(NamedTuple):
    """What can still be read of a frame that is not JSON.

    Attributes:
        kind: The table that `id` belongs to.
        id: The id of the call or channel, where it can be read.
        position: What is wrong, and where, without the content.
    """

    kind: Literal["channelId", "callId"] | None
    id: int | None
    position: str


def diagnose(data: str | bytes) -> Damage | None:
    """Return what is wrong with a frame that is not a JSON object; `None` if it is other JSON."""
    text = data if isinstance(data, bytes) else data.encode(errors="replace")
    try:
        _fallback_parsed(text)
    except UnicodeDecodeError as error:
        position = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        position = f"not JSON at character {error.pos} of {len(text)}"
    except (ValueError, RecursionError):
        position = f"{len(text)} bytes, nested too deeply or with a number of too many digits"
    else:
        return None
    match = re.search(_ID, text[:_HEAD])
    if match is None:
        return Damage(None, None, position)
    return Damage("channelId" if match.group(1) == b"channelId" else "callId", int(match.group(2)), position)


def ensure_writable(value: dict[str, Any]) -> dict[str, Any]:
    """Return a received object in a form that can be written again: valid Unicode, limited nesting.

    Raises:
        TypeError: If it is nested too deeply.
    """
    try:
        to_json(value)  # the quickest check of the whole object; what only the fallback parser accepts fails
    except ValueError:
        written: dict[str, Any] = sanitize(value)
        return written
    return value


def sanitize(value: Any, levels: int = DEEPEST) -> Any:
    """Return a copy of a JSON value with valid Unicode.

    Raises:
        TypeError: If it is nested more deeply than `levels`.
    """
    if isinstance(value, str):
        return without_surrogates(value)
    if not (is_object(value) or is_list(value)):
        return value
    if not levels:
        raise TypeError(f"nested deeper than {DEEPEST} levels")
    if is_object(value):
        return {without_surrogates(name): sanitize(member, levels - 1) for name, member in value.items()}
    return [sanitize(item, levels - 1) for item in value]


def without_surrogates(text: str) -> str:
    """Return a text with a replacement character for each lone surrogate, which UTF-8 cannot represent."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
"""A pattern of JSON strings; possessive, and with an optional end, so that no input makes it read a byte twice."""

_BRACKET = rb"(?s)[\[\]{}]|" + _STRING
"""A bracket, or a string, whose brackets are not counted."""


_QUOTE = ord('"')


def is_deeper(data: str | bytes, limit: int) -> bool:
    """Return whether a JSON text is nested more deeply than `limit`, without parsing it."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    depth = 0
    for token in re.finditer(_BRACKET, text):
        sign = text[token.start()]
        depth += (sign in b"[{") - (sign in b"]}")
        if depth > limit:
            return True
    return False


def members_before_nested(data: str | bytes) -> dict[str, Any]:
    """Return the members of a frame that come before its first object or array. The rest is not read."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    brackets = (token.start() for token in re.finditer(_BRACKET, text) if text[token.start()] != _QUOTE)
    _, end = next(brackets, 0), next(brackets, len(text))
    try:
        members = from_json(text[:end], allow_partial=True)
    except ValueError:
        return {}
    return members if is_object(members) else {}


def auth(identifier: str, passkey: str) -> str:
    """Return the first frame of a connection."""
    # It is the only frame of the client without a type (docs/protocol.md#first-frame).
    return dumps({"authVersion": AUTH_VERSION, "clientIdentifier": identifier, "clientPasskey": passkey})


def rpc_call(endpoint: str, call_id: int, parameter: str | None) -> str:
    """Return the frame of a call. A void parameter is omitted: null is rejected (docs/protocol.md#rule-omit-unset)."""
    return f'{{"type":"rpcCall","endpoint":"{endpoint}","callId":{call_id}{_member("parameter", parameter)}}}'


def channel_create(endpoint: str, channel_id: int, parameter: str | None) -> str:
    """Return the frame that opens a channel. A void parameter is omitted, as in `rpc_call`."""
    tail = _member("creationParameter", parameter)
    return f'{{"type":"channelCreate","endpoint":"{endpoint}","channelId":{channel_id}{tail}}}'


def channel_send(channel_id: int, message: str) -> str:
    """Return the frame of a packet on a channel, in either direction."""
    return f'{{"type":"channelSend","channelId":{channel_id},"message":{message}}}'


def channel_close(channel_id: int) -> str:
    """Return the frame that ends a channel after its terminal packet (docs/protocol.md#rule-finish-channels)."""
    return f'{{"type":"channelClose","channelId":{channel_id}}}'


def channel_error(channel_id: int, error: str) -> str:
    """Return the frame that ends a channel with an error."""
    return f'{{"type":"channelError","channelId":{channel_id},"error":{error}}}'


def rpc_result(call_id: int, result: str | None) -> str:
    """Return the reply to a call. A void result is omitted: null hangs TypeScript (docs/protocol.md#rule-omit-void)."""
    return f'{{"type":"rpcResult","callId":{call_id}{_member("result", result)}}}'


def rpc_error(call_id: int, error: str) -> str:
    """Return the reply to a call that failed."""
    return f'{{"type":"rpcError","callId":{call_id},"error":{error}}}'


def warning(text: str, kind: str) -> str:
    """Return a communication warning."""
    return dumps({"type": "communicationWarning", "warning": text, "kind": kind})


KEEP_ALIVE_ACK = '{"type":"keepAliveAck"}'
"""Sent only in reply to `keepAlive`: unsolicited, it ends a Python session
(docs/protocol.md#rule-nothing-unsolicited)."""


def _member(name: str, value: str | None) -> str:
    return "" if value is None else f',"{name}":{value}'
