"""What has happened on the server, for tests to look at from their own thread."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Literal, TypeVar

from lmstudio_integrations._typeguards import is_list, is_object
from lmstudio_integrations.emulator.limits import DEFAULT_LIMITS, Limits
from lmstudio_integrations.errors import LMStudioTimeoutError

_LOOK_AGAIN = 0.02
"""Seconds after which a condition is looked at even if nothing was announced; tokens are not."""

_OVERHEAD = 64
"""Bytes that a value takes besides its characters and its members, about."""

LoadMode = Literal["just_in_time", "explicit"]
LoadState = Literal["loading", "loaded", "failed", "cancelled", "evicted", "expired", "crashed", "unloaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """One prediction, as it stands at the moment of reading: what was requested, and what came of it.

    All values are plain data: `dataclasses.asdict` makes JSON of a record.

    Attributes:
        model: The identifier of the model that responds.
        client: The identifier of its client.
        messages: The conversation. A content that is one text is a string, any other one the list of its parts in
            wire form; files are named, not contained. Empty if a text is continued.
        prompt: The text to continue; `None` for a conversation.
        tools: The tools that the model may call, in wire form.
        tool_choice: Whether it must call one.
        config: The settings of the request and its preset, as the native client takes them, but for the tools. `False`
            is a setting that is switched off; settings without a name are in `raw`.
        images: The images of the conversation in order: `name`, `identifier`, `sizeBytes` and `sha256`.
        state: Whether it waits for its turn, runs, or has ended.
        fragments: How many fragments of text were sent.
        text: The response without reasoning, once the prediction has ended, also if it was stopped or failed.
        reasoning: The reasoning before it.
        tool_calls: The tool calls of the response: `id`, `name` and `arguments`.
        stop_reason: Why it ended: a reason of protocol §6.5, `error`, or `disconnected`.
        stats: The statistics that were sent at the end, in wire form.
        error: The title of the error that ended it.
    """

    model: str
    client: str
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    prompt: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tool_choice: Literal["none", "auto", "required"] = "auto"
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    state: Literal["queued", "running", "ended"] = "queued"
    fragments: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    stop_reason: str | None = None
    stats: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str | None = None

    @property
    def raw(self) -> bool:
        """Whether a text is continued, without a chat template."""
        return self.prompt is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecord:
    """One text that a client embedded.

    Attributes:
        model: The identifier of the model.
        client: The identifier of its client.
        text: The text.
    """

    model: str
    client: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load of a model, as it stands at the moment of reading.

    Attributes:
        key: The model's key in the catalog.
        identifier: The identifier of the instance.
        mode: `just_in_time` for a load on first use, which the next one of its kind may evict; `explicit` for a load
            by request, at the start of the server or by `Emulator.load`.
        config: The load settings that were requested, as the native client takes them.
        state: `loading` and `loaded`; `failed` and `cancelled` for a load that did not succeed; and how the instance
            ended: `evicted` by another model's just-in-time load, `expired` after its idle TTL, `model_crashed`, or
            `unloaded` by request or with the server.
    """

    key: str
    identifier: str
    mode: LoadMode
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    state: LoadState = "loading"


RecordT = TypeVar("RecordT", PredictionRecord, EmbeddingRecord, LoadRecord)


class Entry(Generic[RecordT]):
    """The place of one record, which is replaced as things go on: readers see the state of one moment.

    Attributes:
        live: Members that change with every token, for which a new record would cost too much.
    """

    def __init__(self, record: RecordT) -> None:
        self.live: dict[str, Any] = {}
        self.is_recorded: bool = True
        self._record: RecordT = record
        self.size: int = size_of({each.name: getattr(record, each.name) for each in fields(record)})

    @property
    def record(self) -> RecordT:
        """The record as it stands now."""
        live = self.live  # read before the record, as `update` writes them the other way round
        return replace(self._record, **live) if live else self._record

    def update(self, **changes: Any) -> None:
        """Replace members of the record by others of about the same size."""
        self._record = replace(self._record, **(self.live | changes))
        self.live = {}


class Log(Generic[RecordT]):
    """Records of one kind, oldest first. The oldest are dropped if there are too many, or too large ones."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries: deque[Entry[RecordT]] = deque()
        self._size = 0

    @property
    def records(self) -> tuple[RecordT, ...]:
        """The records, as they stand now."""
        return tuple(entry.record for entry in tuple(self._entries))

    def add(self, record: RecordT) -> Entry[RecordT]:
        """Add a record."""
        entry = Entry(record)
        self._entries.append(entry)
        self._size += entry.size
        self._drop()
        return entry

    def complete(self, entry: Entry[RecordT], **changes: Any) -> None:
        """Replace members of a record by larger ones."""
        entry.update(**changes)
        growth = size_of(changes)
        entry.size += growth
        if entry.is_recorded:
            self._size += growth
            self._drop()

    def _drop(self) -> None:
        """Drop what is beyond the limits; the newest record always stays."""
        limits = self._limits
        while len(self._entries) > 1 and (len(self._entries) > limits.records or self._size > limits.record_bytes):
            dropped = self._entries.popleft()
            dropped.is_recorded = False
            self._size -= dropped.size


class Records:
    """Records, and a way to wait for them. Written by the server's thread, read by any."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.predictions: Log[PredictionRecord] = Log(limits)
        self.embeddings: Log[EmbeddingRecord] = Log(limits)
        self.loads: Log[LoadRecord] = Log(limits)
        self._changed = threading.Condition()

    def announce(self) -> None:
        """Wake all who wait, because something has changed."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Wait until a condition holds.

        Raises:
            LMStudioTimeoutError: If it does not in time, in seconds.
        """
        for _ in range(max(1, round(timeout / _LOOK_AGAIN))):
            if predicate():
                return
            # The lock is not held while the condition is looked at: the server's thread must never wait for a test.
            with self._changed:
                self._changed.wait(_LOOK_AGAIN)
        if predicate():
            return
        raise LMStudioTimeoutError(f"the condition did not hold within {timeout} s", elapsed=timeout)


def size_of(value: object) -> int:
    """Return about how many bytes plain data takes."""
    if isinstance(value, str):
        return _OVERHEAD + len(value)
    if is_object(value):
        return _OVERHEAD + sum(size_of(name) + size_of(member) for name, member in value.items())
    if is_list(value):
        return _OVERHEAD + sum(map(size_of, value))
    return _OVERHEAD
