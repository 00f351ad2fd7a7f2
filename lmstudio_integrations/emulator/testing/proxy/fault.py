"""What a fault is: something that can go wrong between a client and a server. `fault_table.py` has all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, TypeAlias, get_args

from lmstudio_integrations.emulator.testing.proxy import actions
from lmstudio_integrations.emulator.testing.proxy.injections import ALWAYS, Action, Injection
from lmstudio_integrations.errors import LMStudioValueError

LASTING = 1.0
"""Seconds that a fault lasts for users, unless it happens only once."""

Kind: TypeAlias = Literal["connection", "slow", "malformed", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The connection breaks; nothing comes, or it comes late; what comes is no valid message; the server says no."""


class Phase(Enum):
    """When it goes wrong; the headings of the page on reliability."""

    CONNECT = "While connecting"
    TLS = "During the TLS handshake"
    UPGRADE = "During the WebSocket handshake"
    AUTHENTICATE = "During authentication"
    LOAD = "While the model loads"
    FIRST = "Before the first packet"
    MIDDLE = "In the middle of a response"
    LAST = "At the end of a response"
    IDLE = "Between two calls"
    STOP = "When the caller stops a stream"
    HOSTS = "With a second host"

    @property
    def word(self) -> str:
        """The name by which users choose the faults of a phase."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Fault:
    """What can go wrong, and when.

    Attributes:
        name: What and when, in kebab case.
        kind: `connection`, `slow`, `malformed` or `error`.
        phase: When.
        summary: What goes wrong, as a sentence.
        injections: What the proxy does. Without any, it rejects connections.
        is_common: Whether it is in the list; a finer one is chosen by its name only.
    """

    name: str
    kind: Kind
    phase: Phase
    summary: str
    injections: tuple[Injection, ...] = ()
    is_common: bool = True

    @property
    def choices(self) -> set[str]:
        """The words by which users choose it."""
        return {self.name, self.kind, self.phase.word} if self.is_common else {self.name}

    @property
    def rejects_connections(self) -> bool:
        """Whether nothing listens on the port."""
        return not self.injections

    @property
    def is_lasting(self) -> bool:
        """Whether it lasts for a time; otherwise it happens once."""
        return not self.injections or any(
            injection.times == ALWAYS or injection.action is actions.freeze for injection in self.injections
        )

    def transient(self, skip: int = 0) -> tuple[Injection, ...]:
        """Return what the proxy does for a test: it happens once, or lasts a second.

        Args:
            skip: How many opportunities pass before it happens, if it happens once.
        """
        return tuple(
            replace(
                injection,
                action=_thawing(injection.action),
                seconds=LASTING if injection.times == ALWAYS else math.inf,
                skip=0 if self.is_lasting else skip,
                fault=self.name,
            )
            for injection in self.injections
        )

    def recurring(self, probability: float, endpoints: Iterable[str] | None = None) -> tuple[Injection, ...]:
        """Return what the proxy does for as long as it runs, at each opportunity.

        Args:
            probability: How likely it is at each of them, from 0 to 1.
            endpoints: Requests of which endpoints it happens to; by default of those that it is made for.

        Raises:
            LMStudioValueError: If it cannot be limited to endpoints, because it happens before there is a request, or
                cannot recur, because the proxy does not see the connections that the system rejects.
        """
        if not self.injections:
            raise LMStudioValueError(
                f"the fault {self.name!r} cannot recur while a server runs; choose 'connection-reset-on-connect'"
            )
        if endpoints is not None and self.phase in _BEFORE_REQUESTS:
            raise LMStudioValueError(
                f"the fault {self.name!r} happens before there is a request; write it without an operation"
            )
        return tuple(
            Injection(point, _thawing(injection.action), ALWAYS, probability=probability, fault=self.name)
            for injection in self.injections
            for point in _points(injection.point, endpoints)
        )


_BEFORE_REQUESTS = {Phase.CONNECT, Phase.UPGRADE, Phase.AUTHENTICATE}
_LOAD_POINTS = {"load request": "request", "load packet": "first packet", "load result": "last packet"}


def _points(point: str, endpoints: Iterable[str] | None) -> Iterable[str]:
    """Return the points of a conversation that correspond to one, of certain endpoints."""
    return (point,) if endpoints is None else [f"{endpoint} {_LOAD_POINTS.get(point, point)}" for endpoint in endpoints]


def _thawing(action: Action) -> Action:
    return actions.freeze_for(LASTING) if action is actions.freeze else action


def at(point: str, action: Action, times: float = 1) -> tuple[Injection, ...]:
    """Return the injections of a fault that has one."""
    return (Injection(point, action, times),)
