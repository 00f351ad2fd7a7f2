"""When a fault is injected: at which point of a conversation, how often, and for how long."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from lmstudio_integrations.emulator.testing.proxy.wire_items import WireItem

logger: logging.Logger = logging.getLogger(__name__)

ALWAYS = math.inf
"""How often an injection happens that lasts until the proxy is healed."""

Action = Callable[[Any, WireItem], Awaitable[None]]
"""What happens to a `ProxiedConnection`, which is built on this module, in place of forwarding an item."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What happens at a point of the conversation.

    Attributes:
        point: An injection point: one of `WireTracker`, or `accept`, `request head`, `upgrade` or `response head`.
        action: What happens in place of forwarding.
        times: How often; afterwards the proxy forwards again.
        skip: How many opportunities pass before the first time.
        probability: How likely it is at each opportunity after them, from 0 to 1.
        seconds: After how many seconds from the first time it is over in any case.
        fault: The name of the fault, for the log.
    """

    point: str
    action: Action
    times: float = 1
    skip: int = 0
    probability: float = 1.0
    seconds: float = math.inf
    fault: str = "a fault"


class _Due:
    """An injection, and what is left of it."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection
        self.has_happened = False
        self._skip = injection.skip
        self._times = injection.times

    def take(self, points: frozenset[str], random: Random) -> bool:
        """Return whether it happens now, where it might."""
        if self.injection.point not in points or self._times <= 0:
            return False
        if self._skip:
            self._skip -= 1
            return False
        if self.injection.probability < 1 and random.random() >= self.injection.probability:
            return False
        self._times -= 1
        return True

    def end(self) -> None:
        """Let it happen no more."""
        self._times = 0


class Injections:
    """The injections of a proxy, and what is left of each. Belongs to the proxy's thread."""

    def __init__(self, injections: Iterable[Injection], random: Random) -> None:
        self._due = [_Due(injection) for injection in injections]
        self._random = random

    def take(self, item: WireItem) -> Injection | None:
        """Return the injection that happens now."""
        due = next((each for each in self._due if each.take(item.points, self._random)), None)
        if due is None:
            return None
        injection = due.injection
        logger.info("fault: %s%s", injection.fault, f" on {item.endpoint}" if item.endpoint else "")
        if not due.has_happened and injection.seconds < math.inf:
            asyncio.get_running_loop().call_later(injection.seconds, due.end)
        due.has_happened = True
        return injection

    def clear(self) -> None:
        """Let nothing happen any more."""
        self._due.clear()
