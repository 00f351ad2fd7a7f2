"""The entries of a server's log. See `docs/protocol.md#diagnostics-endpoints`."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import Field, ValidationError, field_serializer

from lmstudio_integrations.types._wire_model import TaggedModel
from lmstudio_integrations.types.results import LlmPredictionStats


class LogEntry(TaggedModel):
    """An entry of the log.

    `timestamp` is a Unix time in milliseconds, `type` the kind in the server's word. An entry of a kind that this
    version does not know, or that has another form than its kind, is a plain `LogEntry`. Its `data` is then what the
    server sent; the other classes have an empty one.
    """

    timestamp: float
    type: str
    data: dict[str, Any] = Field(default_factory=dict)

    @field_serializer("timestamp")
    def _whole(self, timestamp: float) -> int | float:
        return int(timestamp) if timestamp.is_integer() else timestamp


class ModelInputEntry(LogEntry):
    """A prediction begins. `input` is its prompt, with everything that the chat template adds."""

    type: str = "llm.prediction.input"
    input: str
    model_path: str
    model_identifier: str


class ModelOutputEntry(LogEntry):
    """A prediction has ended. `output` is what the model wrote."""

    type: str = "llm.prediction.output"
    output: str
    model_identifier: str
    stats: LlmPredictionStats | None = None


class ServerEntry(LogEntry):
    """A line of the server. `level` is `debug`, `info`, `warn` or `error`."""

    type: str = "server.log"
    content: str
    level: str


class RuntimeEntry(LogEntry):
    """A line of an engine. `level` is `debug`, `info`, `warn` or `error`; `pid` is the process of the engine."""

    type: str = "runtime.log"
    level: str
    message: str
    engine_name: str
    engine_version: str
    engine_type: str
    model_identifier: str | None = None
    instance_reference: str | None = None
    pid: int | None = None


_KINDS: dict[object, type[LogEntry]] = {
    kind.model_fields["type"].default: kind for kind in (ModelInputEntry, ModelOutputEntry, ServerEntry, RuntimeEntry)
}


def parse_entry(log: Mapping[str, Any]) -> LogEntry:
    """Return an entry of the log, from its wire form.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: If it has no time or no data.
    """
    timestamp, data = log["timestamp"], log["data"]
    kind = data.get("type")
    with suppress(ValidationError, KeyError, TypeError):
        return _KINDS[kind].from_dict({**data, "timestamp": timestamp})
    return LogEntry(timestamp=timestamp, type=str(kind), data=data)
