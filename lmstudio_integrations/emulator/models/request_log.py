"""The log of what happened on the server, which tests read from their own thread."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from lmstudio_integrations.errors import LMStudioTimeoutError

_RECHECK_SECONDS = 0.02
"""Seconds after which a condition is checked again without a notification; tokens send none."""

LoadMode = Literal["just_in_time", "explicit"]
PluginCallState = Literal["running", "ended", "failed", "aborted"]
LoadState = Literal["loading", "loaded", "failed", "cancelled", "evicted", "expired", "crashed", "unloaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """One prediction, as of the moment of reading: the request and the outcome.

    All values are plain data: `dataclasses.asdict` returns JSON.

    Attributes:
        model: The identifier of the model that responds.
        client: The identifier of its client.
        messages: The conversation. Content that is one text is a string, other content a list of parts in wire
            form; files are listed without their content. Empty for raw completion.
        prompt: The text to continue; `None` for a conversation.
        tools: The tools that the model may call, in wire form.
        tool_choice: Whether it must call one.
        config: The settings of the request and its preset, in the form of the native client, without tools. `False`
            is a setting that is switched off; settings without a name are in `raw`.
        images: The images of the conversation in order: `name`, `identifier`, `sizeBytes` and `sha256`.
        state: Whether it is queued, runs, or has ended.
        fragments: The number of text fragments that were sent.
        text: The response without reasoning, once the prediction has ended, even if it was cancelled or failed.
        reasoning: The reasoning before it.
        tool_calls: The tool calls of the response: `id`, `name` and `arguments`.
        stop_reason: Why it ended: one of docs/protocol.md#prediction-stats, `error`, or `disconnected`.
        stats: The stats that were sent at the end, in wire form.
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
        """Whether it is a raw completion, without a chat template."""
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
class DecisionRecord:
    """One request to a decision model, as of the moment of reading.

    Attributes:
        model: The identifier of the model.
        state: What the questions are about.
        questions: The questions by their ids, in wire form.
        answers: The answers by the same ids, in wire form; none while it runs, or if it failed.
    """

    model: str
    state: Any
    questions: dict[str, Any]
    answers: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """One load of a model, as of the moment of reading.

    Attributes:
        key: The model's key in the catalog.
        identifier: The identifier of the instance.
        device: The name of the linked device that loads it; `None` for this machine.
        mode: `just_in_time` for a load on first use, which the next such load may evict; `explicit` for a load by
            request, at the start of the server or by `Emulator.load`.
        config: The requested load settings, in the form of the native client.
        state: `loading` and `loaded`; `failed` and `cancelled` for a load that did not succeed; and how the instance
            ended: `evicted` by another model's just-in-time load, `expired` after its idle TTL, `crashed`, or
            `unloaded` by request, with its device or with the server.
    """

    key: str
    identifier: str
    mode: LoadMode
    device: str | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    state: LoadState = "loading"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCallRecord:
    """One call of a tool of a plugin, as of the moment of reading.

    All values are plain data: `dataclasses.asdict` returns JSON.

    Attributes:
        plugin: The identifier of the plugin.
        tool: The name of the tool.
        client: The identifier of the client.
        arguments: The arguments, as the client sent them.
        state: `running`; `ended` with a result, `failed` with an error, or `aborted` by the client or because its
            session or its socket has ended.
        result: The result of a call that has ended.
        error: The title of the error of a call that failed.
    """

    plugin: str
    tool: str
    client: str
    arguments: Any
    state: PluginCallState = "running"
    result: Any = None
    error: str | None = None


RecordT = TypeVar("RecordT", PredictionRecord, EmbeddingRecord, DecisionRecord, LoadRecord, PluginCallRecord)


class RecordEntry(Generic[RecordT]):
    """Holds one record, which is replaced on every change, so that readers see a consistent state.

    Attributes:
        live: Members that change with every token; a new record for each would cost too much.
    """

    def __init__(self, record: RecordT, on_change: Callable[[], None]) -> None:
        self.live: dict[str, Any] = {}
        self._record: RecordT = record
        self._on_change = on_change

    @property
    def record(self) -> RecordT:
        """The current record."""
        live = self.live  # read before the record, as `update` writes them in the opposite order
        return replace(self._record, **live) if live else self._record

    def update(self, **changes: Any) -> None:
        """Replace members of the record."""
        self._record = replace(self._record, **(self.live | changes))
        self.live = {}
        self._on_change()


class Records(Generic[RecordT]):
    """Records of one kind, oldest first. Beyond a number, the oldest are dropped."""

    def __init__(self, most: int, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._entries: deque[RecordEntry[RecordT]] = deque(maxlen=most)

    @property
    def all(self) -> tuple[RecordT, ...]:
        """The current records."""
        return tuple(entry.record for entry in self._entries.copy())

    def add(self, record: RecordT) -> RecordEntry[RecordT]:
        """Add a record, which may change later."""
        entry = RecordEntry(record, self._on_change)
        self._entries.append(entry)
        self._on_change()
        return entry


class RequestLog:
    """All records, and a way to wait for them. Written by the server's thread, read by any.

    Args:
        most: How many of each kind are kept.
    """

    def __init__(self, most: int) -> None:
        self._changed = threading.Condition()
        self.predictions: Records[PredictionRecord] = Records(most, self.notify)
        self.embeddings: Records[EmbeddingRecord] = Records(most, self.notify)
        self.decisions: Records[DecisionRecord] = Records(most, self.notify)
        self.loads: Records[LoadRecord] = Records(most, self.notify)
        self.tool_calls: Records[PluginCallRecord] = Records(most, self.notify)

    def notify(self) -> None:
        """Wake all waiters, because something has changed."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Wait until a condition holds.

        Raises:
            LMStudioTimeoutError: If it does not hold in time, in seconds.
        """
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() >= deadline:
                raise LMStudioTimeoutError(f"the condition did not hold within {timeout} s", elapsed=timeout)
            # The condition is checked without the lock: the server's thread must never wait for a test.
            with self._changed:
                self._changed.wait(_RECHECK_SECONDS)
