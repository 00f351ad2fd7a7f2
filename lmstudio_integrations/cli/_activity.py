"""What a loaded model does, as a row of `top`, for people and for programs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._support.secrets import redact
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._formatting import duration
from lmstudio_integrations.cli._tables import remaining_seconds, table_lines
from lmstudio_integrations.types.models import InstanceProcessingState, ModelInstanceInfo


@dataclass(frozen=True, slots=True)
class ModelActivity:
    """What a loaded model does.

    Attributes:
        info: Its info.
        device: The name of its device; empty if all models are on the server's own machine.
        state: What it is doing; `None` if the server cannot say that.
        slots: How many predictions it runs at once; `None` if that is not known.
        tokens_per_second: The speed of the last prediction that has ended since the log is read.
        first_token_sec: How many seconds that took to its first token.
    """

    info: ModelInstanceInfo
    device: str
    state: InstanceProcessingState | None
    slots: int | None
    tokens_per_second: float | None
    first_token_sec: float | None

    @property
    def running(self) -> int:
        """How many requests run."""
        return max(0, min(self.state.queued, self.slots or 1)) if self.state else 0

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return max(0, self.state.queued - self.running) if self.state else 0


def activity_lines(activities: Iterable[ModelActivity], now: float, width: int) -> list[str]:
    """Return a table of what loaded models do.

    Args:
        activities: What each does.
        now: The time, in seconds since 1970.
        width: The columns of the terminal. A name that is too long for them is cut.
    """
    rows = [
        (
            redact(one_line(each.info.identifier)),
            redact(one_line(each.device)),
            redact(one_line(each.state.status)).upper() if each.state else "?",
            f"{each.running}/{each.slots or '?'}",
            str(each.waiting),
            _shown(each.tokens_per_second, "{:.1f}".format),
            _shown(each.first_token_sec, "{:.2f} s".format),
            _shown(remaining_seconds(each.info, now), duration),
        )
        for each in activities
    ]
    header = ("MODEL", "DEVICE", "STATUS", "SLOTS", "QUEUE", "TOK/S", "TTFT", "TTL")
    return table_lines(header, rows, width, omit=("TTL", "DEVICE", "STATUS", "TTFT"), cut="MODEL")


def _shown(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def activity_members(activity: ModelActivity, now: float) -> dict[str, Any]:
    """Return what a loaded model does, for JSON; what is not known is null."""
    return {
        "identifier": activity.info.identifier,
        "modelKey": activity.info.model_key,
        "deviceIdentifier": activity.info.device_identifier,
        "status": activity.state and activity.state.status,
        "slots": activity.slots,
        "running": activity.state and activity.running,
        "waiting": activity.state and activity.waiting,
        "tokensPerSecond": activity.tokens_per_second,
        "timeToFirstTokenSec": activity.first_token_sec,
        "remainingSec": remaining_seconds(activity.info, now),
    }
