"""The faults around calls of tools: one row for each. `docs/internals/reliability.md` has them as well."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import lmstudio_integrations as lms
from tests.faults import actions
from tests.faults.faults import at
from tests.faults.proxy import Injection

LOST = lms.LMStudioToolConnectionLostError
TIMEOUT = lms.LMStudioTimeoutError


class When(Enum):
    """When something goes wrong."""

    START = "while the plugin starts"
    SENT = "when the call is sent"
    RUNNING = "while the tool runs"
    RESULT = "when the result is sent"
    AFTER = "after the call"


@dataclass(frozen=True)
class ToolFault:
    """One row.

    Attributes:
        when: When something goes wrong.
        name: What it is, as a sentence.
        inject: What the proxy does.
        error: The error of the call, or of the start, if it fails.
        timeout: The timeout that is to expire.
        runs: How often the tool has run by then.
        ends_session: Whether the next call opens a new session, with a warning.
        unnoticed: Whether the connection is lost after a call that works, and the next one finds out.
        noticed: Whether the next call waits until the client knows that the connection is gone.
    """

    when: When
    name: str
    inject: tuple[Injection, ...]
    error: type[Exception] | None = None
    timeout: str | None = None
    runs: int = 1
    ends_session: bool = True
    unnoticed: bool = False
    noticed: bool = False

    @property
    def waits(self) -> bool:
        """Whether a timeout is to expire, or `keepalive` to notice something."""
        return self.timeout is not None or "goes dead" in self.name

    def __str__(self) -> str:
        return f"{self.when.name}: {self.name}"

    @property
    def start(self) -> type[Exception] | None:
        """The error of the start, if it fails."""
        return self.error if self.when is When.START else None

    @property
    def call(self) -> type[Exception] | None:
        """The error of the call, if it fails."""
        return None if self.when is When.START else self.error


def _breaks(when: When, point: str, runs: int) -> Iterator[ToolFault]:
    """Return the rows of what may break a connection at a point. How it is lost makes no difference to a session."""
    for name, action in (
        ("The connection is reset.", actions.reset),
        ("The connection goes dead, and `keepalive` detects it.", actions.go_dead),
    ):
        yield ToolFault(when, name, at(point, action), LOST, runs=runs)
    yield ToolFault(when, "The host freezes.", at(point, actions.freeze), TIMEOUT, "idle_timeout", runs)


def _failure(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelError", "channelId": message["channelId"], "error": {"title": "The plugin has crashed"}}


def _end(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelClose", "channelId": message["channelId"]}


REQUEST, READY, CALL = "startToolUseSession request", "sessionReady", "callTool"
STATUS, RESULT = "toolCallStatus", "toolCallComplete"

TABLE: tuple[ToolFault, ...] = (
    ToolFault(When.START, "The request is lost.", at(REQUEST, actions.lose), TIMEOUT, "load_timeout", 0),
    ToolFault(When.START, "The plugin never starts.", at(READY, actions.lose), TIMEOUT, "load_timeout", 0),
    ToolFault(
        When.START, "The connection is reset.", at(REQUEST, actions.reset), lms.LMStudioConnectionLostError, runs=0
    ),
    *_breaks(When.SENT, CALL, runs=0),
    *_breaks(When.RUNNING, STATUS, runs=1),
    ToolFault(When.RUNNING, "The connection is closed.", at(STATUS, actions.finish), LOST),
    ToolFault(
        When.RUNNING,
        "The server closes its side of the connection (half-close).",
        at(STATUS, actions.half_close),
        LOST,
    ),
    ToolFault(When.RUNNING, "The connection is reset inside a frame.", at(STATUS, actions.cut(actions.reset)), LOST),
    ToolFault(When.RUNNING, "The session fails.", at(STATUS, actions.replace(_failure)), LOST),
    ToolFault(When.RUNNING, "The server ends the session.", at(STATUS, actions.replace(_end)), LOST),
    ToolFault(When.RUNNING, "A status text comes twice.", at(STATUS, actions.duplicate), ends_session=False),
    *_breaks(When.RESULT, RESULT, runs=1),
    ToolFault(
        When.RESULT, "The result is lost.", at(RESULT, actions.lose), TIMEOUT, "total_timeout", ends_session=False
    ),
    ToolFault(When.RESULT, "The result comes twice.", at(RESULT, actions.duplicate), ends_session=False),
    ToolFault(When.AFTER, "The connection is reset.", at(RESULT, actions.after(actions.reset)), noticed=True),
    ToolFault(
        When.AFTER,
        "The connection goes dead, and the next call follows at once.",
        at(RESULT, actions.after(actions.go_dead)),
        LOST,
        unnoticed=True,
    ),
)
