"""The limits of what the server accepts, buffers, loads and records."""

from dataclasses import dataclass, fields

from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.errors import LMStudioValueError

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server.

    Attributes:
        message_bytes: Size of one message. An uploaded file is one message, in base64.
        backlog_bytes: Unread output of a connection; a client that leaves more unread is disconnected.
        loaded_models: Models that are loaded at once on each device.
        records: Records of each kind: predictions, embeddings, loads, tool calls. The oldest are dropped.
        record_bytes: Approximate memory of the records of each kind. The newest record is always kept, even if it
            alone exceeds this.

    Raises:
        LMStudioValueError: If a limit is not positive.
    """

    message_bytes: int = 256 * MIB
    backlog_bytes: int = 64 * MIB
    loaded_models: int = 64
    records: int = 10_000
    record_bytes: int = 32 * MIB

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (is_count(value) and value):
                raise LMStudioValueError(f"the limit {each.name} must be a positive whole number; got {shown(value)}")


DEFAULT_LIMITS = Limits()
