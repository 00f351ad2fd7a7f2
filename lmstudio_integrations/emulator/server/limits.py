"""The limits of what the server accepts from its clients, and of its records.

Values and pure checks; the rest of this folder applies them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import STRING

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of what the server accepts from its clients.

    Attributes:
        connections: Connections at once, of all clients. The number of open files of the process limits them, too.
        client_connections: Connections of one client.
        handshake_timeout: Seconds for the HTTP request that opens a connection.
        message_bytes: Size of one message. An image is one message, in base64.
        message_values: JSON values and separators in one message; they take far more memory than their text.
        requests: Open calls and channels of one client, and its running tool calls.
        request_bytes: Total size of the messages that opened them.
        backlog_bytes: Unread output of a connection.
        file_bytes: Size of one uploaded file.
        upload_bytes: Size of all uploaded files of one client, their names included.
        retrieval_chunks: Chunks of text in one retrieval.
        loaded_models: Models that are loaded at once.
        plugins: Plugins with tools that run at once; one that clients use in several directories runs once in each.
        tool_result_bytes: Size of the result of one tool of a plugin, as JSON.
        records: Records of each kind: predictions, embeddings, loads, tool calls. The oldest are dropped.
        record_bytes: Approximate memory of the records of each kind. The newest record is always kept, even if it
            alone exceeds this.
        ping_interval: Seconds without a message after which a client is pinged; `None` to never ping.
        ping_timeout: Seconds after a ping within which the client must send something.

    Raises:
        LMStudioValueError: If a limit is not positive, or is `None` and not `ping_interval`.
    """

    connections: int = 1024
    client_connections: int = 256
    handshake_timeout: float = 10.0
    message_bytes: int = 64 * MIB
    message_values: int = 500_000
    requests: int = 10_000
    request_bytes: int = 256 * MIB
    backlog_bytes: int = 64 * MIB
    file_bytes: int = 32 * MIB
    upload_bytes: int = 256 * MIB
    retrieval_chunks: int = 20_000
    loaded_models: int = 64
    plugins: int = 64
    tool_result_bytes: int = 32 * MIB
    records: int = 10_000
    record_bytes: int = 32 * MIB
    ping_interval: float | None = 30.0
    ping_timeout: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            is_off = value is None and each.name == "ping_interval"
            if not is_off and (value is None or not value > 0):
                raise LMStudioValueError(f"the limit {each.name} must be positive, got {value!r}")


DEFAULT_LIMITS = Limits()

_TOKEN = re.compile(rb"[\[{,]|" + STRING, re.DOTALL)


def has_more_values(message: bytes, limit: int) -> bool:
    """Return whether a JSON text has more values and separators than this, without parsing it."""
    # Quick upper bounds; the second one also counts characters inside strings.
    if len(message) <= limit or len(message) - len(message.translate(None, b'",[{')) <= limit:
        return False
    tokens: Iterator[object] = _TOKEN.finditer(message)
    return next(islice(tokens, limit, None), None) is not None
