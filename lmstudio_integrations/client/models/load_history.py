"""What loads on the machines of a server came to: what was accepted or refused, and with which context length.

The server's estimates err both ways, so `planning.py` believes what was seen more. There is one object per server,
shared by all clients and new after a fork. Any thread may call it: a step that another one interrupts only costs a plan
what was seen last.
"""

import json
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmstudio_integrations._support.bounded_cache import BoundedCache
from lmstudio_integrations._support.environment import LOADS_VARIABLE
from lmstudio_integrations._support.text import counted
from lmstudio_integrations._support.typeguards import is_count, is_list, is_object
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.errors import LMStudioConfigWarning
from lmstudio_integrations.protocol.requests import OnDevice
from lmstudio_integrations.types.memory_plans import Eviction

_MAX_RECORDED = 256
"""Outcomes, contexts and instances that are remembered at most, of each machine."""


class Load(NamedTuple):
    """A model in memory, by what decides how much it takes.

    Attributes:
        model_key: Its key.
        context_length: Its context length; 0 is the server's default, as long as that is not known.
        slots: How many predictions share the context.
    """

    model_key: str
    context_length: int
    slots: int


class Sized(NamedTuple):
    """A model in memory, with the server's estimate of what it takes in bytes, if there is one."""

    load: Load
    memory_bytes: int | None


class _Outcome(NamedTuple):
    """What was in memory at once, or was refused, and the sum of the estimates."""

    accepted: bool
    memory_bytes: int


class MachineHistory:
    """What loads on one machine came to, the newest last. Any thread may call it."""

    def __init__(self, server: str, device: str | None) -> None:
        self._name = {"server": server, "device": device}
        self._outcomes: dict[tuple[Load, ...], _Outcome] = {}
        self._contexts: BoundedCache[tuple[str, int | None], int] = BoundedCache(_MAX_RECORDED)

    def record(self, models: Sequence[Sized], *, accepted: bool) -> None:
        """Record that models were in memory at once, or that a load was refused that would have made it so."""
        self._record(
            {
                "loads": sorted(each.load for each in models),
                "accepted": accepted,
                "memory_bytes": sum(each.memory_bytes or 0 for each in models),
            }
        )

    def record_context(self, model_key: str, requested: int | None, actual: int) -> None:
        """Record with which context length a model was loaded."""
        self._record({"model_key": model_key, "requested": requested, "actual": actual})

    def _record(self, line: Mapping[str, Any]) -> None:
        if self.remember(line):
            _append({**self._name, **line})

    def remember(self, line: Mapping[str, Any]) -> bool:
        """Remember what was seen, in the form of the file; return whether it is new."""
        if "loads" not in line:
            key = line["model_key"], line["requested"]
            known_length: int | None = self._contexts.get(key)
            self._contexts.put(key, line["actual"])
            return bool(known_length != line["actual"])
        loads = tuple(Load(*load) for load in line["loads"])
        outcome = _Outcome(line["accepted"], line["memory_bytes"])
        known = self._outcomes.pop(loads, None)
        if known is not None and known.accepted == outcome.accepted and not outcome.memory_bytes:
            outcome = known  # this time nobody asked for an estimate
        self._outcomes[loads] = outcome  # the newest counts
        for oldest in [*self._outcomes][:-_MAX_RECORDED]:
            self._outcomes.pop(oldest, None)
        return known != outcome

    def context_length(self, model_key: str, requested: int | None) -> int | None:
        """Return the context length that a model was loaded with when this one was requested, if it ever was."""
        return self._contexts.get((model_key, requested))

    def fits(self, models: Sequence[Sized]) -> bool | None:
        """Whether models fit at once, because as many as these were in memory, or fewer were refused; else `None`."""
        loads = [each.load for each in models]
        for seen, outcome in reversed([*self._outcomes.items()]):
            if _covers(seen, loads) if outcome.accepted else _covers(loads, seen):
                return outcome.accepted
        return None

    def limit(self, capacity: int | None) -> int | None:
        """Return the sum of estimates that fits: the capacity, corrected by what was accepted and refused."""
        if capacity is None:
            return None
        outcomes = [*self._outcomes.values()]
        largest = max((each.memory_bytes for each in outcomes if each.accepted), default=0)
        refused = [each.memory_bytes for each in outcomes if not each.accepted and each.memory_bytes > largest]
        return min([max(capacity, largest), *(size - 1 for size in refused)])


def _covers(larger: Iterable[Load], smaller: Iterable[Load]) -> bool:
    """Whether each load has a counterpart of its own among others that takes at least as much, in whichever order."""
    free, loads = list(larger), list(smaller)
    counterparts: dict[int, int] = {}

    def place(number: int, tried: set[int]) -> bool:
        for at, each in enumerate(free):
            if at not in tried and _is_at_least(each, loads[number]):
                tried.add(at)
                if at not in counterparts or place(counterparts[at], tried):
                    counterparts[at] = number
                    return True
        return False

    return all(place(number, set()) for number in range(len(loads)))


def _is_at_least(one: Load, other: Load) -> bool:
    length, least = one.context_length, other.context_length
    # A default that is not known yet is equal to itself only.
    return one.model_key == other.model_key and (length == least or length > least > 0) and one.slots >= other.slots


def history_of(context: ClientContext) -> "LoadHistory":
    """Return what this process knows of loads on the machines of a server, however that was named."""
    return context.shared(LoadHistory, context.server)


def machine_history_of(context: ClientContext, device: OnDevice) -> MachineHistory:
    """Return what this process knows of loads on one machine of a server."""
    server = context.server
    return history_of(context).of(server.netloc if server else str(context.target), device)


class LoadHistory:
    """What this process knows of loads on the machines of one server.

    If the variable `LMSTUDIO_LOADS` names a file, what was seen is kept there as well, for other programs and later
    runs: JSON Lines, each with the server, the device, and what was in memory or which context length came out.
    """

    def __init__(self) -> None:
        self.evictions: deque[Eviction] = deque(maxlen=_MAX_RECORDED)
        """What the policy `fit` has evicted, the newest last."""
        self.residents: BoundedCache[str | None, tuple[Sized, Mapping[str, Any]]] = BoundedCache(_MAX_RECORDED)
        """What instances take, and the settings that they were loaded with, by reference."""
        self._machines: dict[str | None, MachineHistory] = {}
        self._is_read = False

    def of(self, server: str, device: OnDevice) -> MachineHistory:
        """Return what is known of a machine of the server."""
        if not self._is_read:
            for line in _read(server):
                self._machine(server, line["device"]).remember(line)
            self._is_read = True
        return self._machine(server, device.get("deviceIdentifier"))

    def _machine(self, server: str, device: str | None) -> MachineHistory:
        return self._machines.setdefault(device, MachineHistory(server, device))


def _read(server: str) -> list[dict[str, Any]]:
    """Return what the file has about a server."""
    path = os.environ.get(LOADS_VARIABLE)
    if not path or not Path(path).exists():
        return []
    try:
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        warn_user(f"cannot read {LOADS_VARIABLE}={path!r}, so plans rest on estimates: {error}", LMStudioConfigWarning)
        return []
    lines = [_parse(text) for text in texts if text.strip()]
    of_server = [line for line in lines if line.get("server", server) == server]
    valid = [line for line in of_server if _is_valid(line)]
    if malformed := len(of_server) - len(valid):
        text = f"{counted(malformed, 'line')} of {LOADS_VARIABLE}={path!r} cannot be read; plans do without"
        warn_user(text, LMStudioConfigWarning)
    return valid


def _parse(text: str) -> dict[str, Any]:
    """Return a line of the file; an empty object if it is none."""
    try:
        line = json.loads(text)
    except ValueError:  # a program may have ended while it wrote
        return {}
    return line if is_object(line) else {}


def _is_valid(line: Mapping[str, Any]) -> bool:
    if not isinstance(line.get("server"), str) or not isinstance(line.get("device", 0), str | None):
        return False
    if "loads" in line:
        are_loads = is_list(line["loads"]) and all(map(_is_load, line["loads"]))
        return are_loads and isinstance(line.get("accepted"), bool) and is_count(line.get("memory_bytes"))
    is_request = "requested" in line and (line["requested"] is None or is_count(line["requested"]))
    return is_request and isinstance(line.get("model_key"), str) and is_count(line.get("actual"))


def _is_load(value: object) -> bool:
    return is_list(value) and len(value) == 3 and isinstance(value[0], str) and all(map(is_count, value[1:]))


def _append(line: Mapping[str, Any]) -> None:
    path = os.environ.get(LOADS_VARIABLE)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        warn_user(f"cannot write to {LOADS_VARIABLE}={path!r}: {error}", LMStudioConfigWarning)
