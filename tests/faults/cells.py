"""One cell of the matrix: a fault on a surface. All cells of a fault run at once, each behind a proxy of its own."""

import ssl
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connections import Connection, Connections
from lmstudio_integrations.emulator import PredictionRecord
from lmstudio_integrations.protocol.endpoints import Namespace
from tests.faults.conversations import THOUGHT, thought_of, with_thought
from tests.faults.faults import Phase
from tests.faults.model import UNREACHABLE, WORKS, Outcome, Row
from tests.faults.proxy import Observer, ProxiedConnection, Proxy
from tests.faults.stage import LIMIT, Stage
from tests.faults.surfaces import (
    DIMENSIONS,
    SURFACES,
    TIMEOUT_NAMES,
    Subject,
    Surface,
    Timeouts,
    expected,
    joined,
    run_tool,
)
from tests.faults.wire_items import WireItem
from tests.support.certificates import LOCALHOST
from tests.support.releasing import releasing

SHORT, LONG = 5.0, 120.0
"""Seconds of the timeout that is meant to expire, and of all others."""

PROMPT = "alpha beta gamma delta epsilon."

VICTIM = "victim"
"""The model that is evicted."""


class CellError(AssertionError):
    """A cell differs from the table."""


class Cell(Observer):
    """What belongs to one cell while it runs."""

    def __init__(self, fault: Row, surface: Surface, servers: "Servers", retries: int) -> None:
        self.fault = fault
        self.surface = surface
        self.servers = servers
        self.retries = retries
        self.model = str(surface)
        self.pauses = 0
        """How often an adapter has waited before it tried again."""
        tls = None
        if fault.tls:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(LOCALHOST)
        self.proxy = Proxy(
            servers.stage,
            servers.main.address,
            fault.inject,
            tls=tls,
            is_rejecting=not fault.listening,
            observer=self,
        )
        self.used: list[ProxiedConnection] = []
        self.host = f"{fault.scheme}://{self.proxy.address}"
        host = [self.host, servers.spare.address] if fault.has_other_host else self.host
        settings = {"load_policy": "fit", "device": str(self.surface)} if fault.makes_room else {}
        self.runner = servers.stage.new_runner()
        self.subject = Subject(self.surface, host, self.model, self.runner, self.retries, **settings)
        if fault.has_thought:
            self.subject.earlier = with_thought(self.surface.family)

    def on_item(self, connection: ProxiedConnection, item: WireItem) -> None:
        """Note which connection a request uses, and what is cancelled before the fault."""
        if item.points & {"load request", "request"}:
            self.used.append(connection)

    def run(self) -> None:
        """Go through the calls of a row.

        Raises:
            CellError: If anything is not as the table says.
        """
        self._fill()
        with self.proxy, self.subject:
            if self.fault.has_other_host:
                self.subject.survey_hosts()
            if self.fault.between is not None:
                self.call("warm", WORKS)
                self.fault.between(self)
            outcome = self.fault.outcome(self.surface.kind)
            assert outcome is not None, "cells that cannot happen are not run"
            # Where a fault between two calls is harmless, the call that is observed is the next one.
            observed, after = ("next", "later") if self.fault.between and outcome is WORKS else ("fault", "next")
            if self.fault.stop is None:
                self._call_as_expected(observed, outcome)
            else:
                self.fault.stop(self)
            self._check_that_it_happened()
            if self.fault.meanwhile is UNREACHABLE:
                self.until_noticed()  # the connections that the call did not use are lost as well
            if self.fault.meanwhile is not None:
                self.call("meanwhile", self.fault.meanwhile)
            if self.fault.max_tokens is not None:
                self._continue_cut_off(observed)
            self.heal()
            self._call_as_expected(after, self.fault.then)
            if self.fault.is_about_thoughts:
                self._check_that_no_thought_is_sent()

    def _fill(self) -> None:
        """Let another program load the model that is to be evicted."""
        if self.fault.makes_room and not self._is_filled():
            self.runner.run(self._load_victim())

    async def _load_victim(self) -> None:
        async with lms.AsyncClient(self.servers.main.address) as other:
            await other.llm.load_new_instance(VICTIM, ttl=3600, device=str(self.surface))

    def _is_filled(self) -> bool:
        loaded = self.servers.main.loaded()
        return any((each.model_key, each.device_identifier) == (VICTIM, str(self.surface)) for each in loaded)

    def _continue_cut_off(self, verb: str) -> None:
        """Let the next call continue the conversation of a response whose thought was cut off."""
        thought = thought_of(self.subject.response)
        is_begun = bool(thought) and THOUGHT.startswith(thought) and thought != THOUGHT
        _require(is_begun, f"the {verb} call returned the thought {thought!r}")
        self.subject.continue_after(self._text(verb))

    def _check_that_no_thought_is_sent(self) -> None:
        messages = self.predictions[-1].messages
        roles = [message["role"] for message in messages]
        _require(roles == ["user", "assistant", "user"], f"the last prompt has messages of {roles}")
        answer = messages[1]["content"]
        _require(not any(word in answer for word in ("<think>", *THOUGHT.split())), f"the last call sent {answer!r}")

    def _text(self, verb: str) -> str:
        """Return what a call is about."""
        text = f"{verb} {self.surface} {PROMPT}"
        return text + f" {PROMPT}" * self.fault.window if self.fault.window is not None and verb == "fault" else text

    def run_with_retry(self) -> None:
        """Make the call with `max_retries=1`; the fault is over when the adapter tries again."""
        if self.fault.phase is Phase.LOAD:
            self.servers.main.unload(self.model)
        self._fill()
        with self.proxy, self.subject:
            if self.fault.between is not None:
                self.call("warm", WORKS)
                self.fault.between(self)
            self.call("fault", self.fault.then)
            self._check_that_it_happened()
            _require(self.pauses == 1, f"it paused {self.pauses} times instead of once")

    def pause(self) -> None:
        """Count a pause before a retry; meanwhile the fault ends."""
        self.pauses += 1
        self.heal()

    def heal(self) -> None:
        """End the fault, unless it lasts for ever."""
        if not self.fault.permanent:
            self.proxy.heal()

    @property
    def predictions(self) -> list[PredictionRecord]:
        """The predictions of this cell's model."""
        return [each for each in self.servers.main.predictions if each.model == self.model]

    def wait_until_stopped(self) -> None:
        """Wait until the server has stopped all predictions."""
        self.servers.main.wait_for(
            lambda: all(each.stop_reason == "userStopped" for each in self.predictions) and bool(self.predictions),
            LIMIT,
        )

    def call(self, verb: str, outcome: Outcome) -> None:
        """Make a call and compare what it comes to."""
        text, options = self._text(verb), self._options(verb)
        parts: list[Any] = []
        error: BaseException | None = None
        began = time.monotonic()
        try:
            self.subject.call(text, _timeouts(outcome, self.fault.keepalive), parts, **options)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is compared
            error = raised
        elapsed = time.monotonic() - began
        _require(elapsed < LIMIT, f"the {verb} call took {elapsed:.1f} s")
        right = expected(self.surface.kind, text)
        if "tool_choice" in options:
            right.append(run_tool(**self.fault.call))
        if outcome.error is not None:
            self._check_error(verb, error, outcome)
            self._check_delivered(verb, parts, right)
            return
        _require(error is None, f"the {verb} call failed: {error!r}")
        kind = self.surface.kind
        changed = right if outcome.changed is None else outcome.changed(right)
        _require(joined(kind, parts) == joined(kind, changed), f"the {verb} call returned {parts}")

    def _options(self, verb: str) -> dict[str, Any]:
        """Return the arguments of a call that the row has."""
        fault = self.fault
        options: dict[str, Any] = {"send_reasoning": "always"} if fault.is_about_thoughts else {}
        if verb == "fault" and fault.tool_choice is not None:
            options["tool_choice"] = fault.tool_choice
        if verb == "fault" and fault.max_tokens is not None:
            options["max_tokens"] = fault.max_tokens
        return options

    def _check_error(self, verb: str, error: BaseException | None, outcome: Outcome) -> None:
        assert outcome.error is not None, "only outcomes with an error come here"
        _require(error is not None, f"the {verb} call did not raise {outcome.error.__name__}")
        _require(isinstance(error, lms.LMStudioError), f"the {verb} call raised a raw exception: {error!r}")
        _require(
            isinstance(error, outcome.error) and isinstance(error, self.surface.error_base),
            f"the {verb} call raised {error!r} instead of {outcome.error.__name__}",
        )
        if self.fault.makes_room and verb == "fault":
            _require(
                self._is_filled() or repr(VICTIM) in str(error), f"the {verb} call does not name the evicted model"
            )
        if isinstance(error, lms.LMStudioTimeoutError):
            name, elapsed = error.timeout_name, error.elapsed or 0.0
            _require(name == outcome.timeout_name, f"the {verb} call: {name} expired, not {outcome.timeout_name}")
            _require(elapsed >= SHORT, f"the {verb} call: {name} expired after {elapsed} s")

    def _check_delivered(self, verb: str, parts: list[Any], right: list[Any]) -> None:
        """Compare what was delivered before the error with the right response."""
        if self.surface.kind != "chat":
            _require(not parts, f"the {verb} call delivered {parts} before it failed")
            return
        delivered, whole = "".join(parts), "".join(right)
        _require(
            whole.startswith(delivered) or delivered.startswith(whole),
            f"the {verb} call delivered {delivered!r} before it failed",
        )
        if self.surface.streams and self.fault.phase is Phase.MIDDLE and verb == "fault":
            _require(bool(delivered), f"the {verb} call delivered nothing of what had come")

    def _call_as_expected(self, verb: str, outcome: Outcome) -> None:
        """Make a call; the next one must use the connection that the row names."""
        if verb == "next" and self.fault.noticed:
            self.until_noticed()
        before = list(self.used)
        self.call(verb, outcome)
        if verb == "next" and outcome is WORKS:
            now = "same connection" if self.used[-1] in before else "new connection"
            now = now if len(self.used) > len(before) else "other host"
            _require(self.fault.then_on in {now, "either connection"}, f"the next call used the {now}")

    def _check_that_it_happened(self) -> None:
        if self.fault.has_other_host:
            _require(bool(self.used), "the first host got no call")
        if self.fault.inject or self.fault.between is not None:
            # A call may be over before its last frames have passed.
            _require(self.servers.stage.wait(self.proxy.happened.is_set), "the fault never happened")

    # What the client knows of its connections ------------------------------------------------------------------------

    def until_noticed(self) -> None:
        """Wait until the client knows that its connections are gone."""
        until_noticed(self.servers.stage, self.host)

    def until_ended(self) -> None:
        """Wait until the client has received all that belongs to its calls; a channel ends after its last packet."""
        _wait_until(
            self.servers.stage,
            self.host,
            lambda connection: connection._current is None or connection._current.session.idle,
            "the last call never ended",
        )

    def pretend_silence(self) -> None:
        """Let the client believe that nothing has come for a minute."""

        def backdate(connection: Connection) -> bool:
            current = connection._current
            if current is not None and current._socket is not None:
                current._socket.received_at -= 60.0
            return True

        _wait_until(self.servers.stage, self.host, backdate, "the I/O thread is stuck")

    def close_idle(self) -> None:
        """Let the client close its connections as if they had been idle for long, and wait until the server notices."""
        self.until_ended()
        identities = set[str | None]()

        def retire(connection: Connection) -> bool:
            if connection._current is not None:
                identities.add(connection._current.session._credentials[0])
                connection.drop()
            return True

        _wait_until(self.servers.stage, self.host, retire, "the I/O thread is stuck", get_args(Namespace))
        server = self.servers.main
        server.wait_for(lambda: not identities & {each.client for each in server.connections}, LIMIT)
        self.proxy.happened.set()


def until_noticed(stage: Stage, host: str, namespaces: Collection[Namespace] = ("llm", "embedding")) -> None:
    """Wait until the client knows that its connections to a host are gone."""
    text = "the client never noticed that its connection is gone"
    _wait_until(stage, host, lambda connection: connection._current is None, text, namespaces)


def _wait_until(
    stage: Stage,
    host: str,
    holds: Callable[[Connection], bool],
    otherwise: str,
    namespaces: Collection[Namespace] = ("llm", "embedding"),
) -> None:
    """Wait until something holds of the connections to a host; by default of those on which models are used."""
    target = Target.of(host, None)

    def all_hold() -> bool:
        connections = Connections.of(IOThread.current())._connections.items()
        return all(
            holds(each) for (of, namespace), each in list(connections) if of == target and namespace in namespaces
        )

    _require(stage.wait(all_hold), otherwise)


def _timeouts(outcome: Outcome, keepalive: float) -> Timeouts:
    limits = {**dict.fromkeys(TIMEOUT_NAMES - {"total_timeout"}, LONG), "keepalive": keepalive}
    return limits | ({outcome.timeout_name: SHORT} if outcome.timeout_name in TIMEOUT_NAMES else {})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CellError(message)


class Servers:
    """The emulators of one row: the one that is used, and one that replaces it or is the other host."""

    def __init__(self, stage: Stage, fault: Row) -> None:
        self.stage = stage
        self.main = stage.emulator(
            [_entry(fault, surface) for surface in SURFACES], catalog=_machines(fault), auto_evict=False
        )
        healthy = replace(fault, steps=(), embedding_steps=(), load_steps=())
        self.spare = stage.emulator([_entry(healthy, surface) for surface in SURFACES], auto_evict=False)
        for server in (self.main, self.spare):
            releasing(server)

    @classmethod
    @contextmanager
    def of(cls, stage: Stage, fault: Row) -> Iterator["Servers"]:
        """Run the emulators of a row."""
        servers = cls(stage, fault)
        with servers.main, servers.spare:
            yield servers


def _machines(fault: Row) -> dict[str, Any]:
    """Return a device for each surface, on which its model does not fit beside another one."""
    if not fault.makes_room:
        return {}
    devices = [{"name": str(surface), "memory_gib": 1} for surface in SURFACES]
    return {"device": devices, "model": [{"key": VICTIM, "memory_gib": 0.6, "kib_per_token": 0}]}


def _entry(fault: Row, surface: Surface) -> dict[str, Any]:
    # An adapter of embeddings or a reranker whose explicit load finds no memory tries one just in time.
    loads = 2 if surface.kind != "chat" and surface.family != "native" and fault.denies_loads else 1
    rules: list[dict[str, Any]] = [
        {"when": {"load": True, "round": load}, "then": list(fault.load_steps)}
        for load in (range(1, loads + 1) if fault.load_steps else ())
    ]
    steps = fault.embedding_steps if surface.kind == "embedding" else fault.steps
    if steps:
        rules.append({"when": {"last": "^fault"}, "then": list(steps)})
    memory = {"memory_gib": 0.6, "kib_per_token": 0} if fault.makes_room else {}
    if surface.kind == "embedding":
        return {"key": str(surface), "rules": rules, "kind": "embedding", "embedding_length": DIMENSIONS, **memory}
    if surface.kind == "chat":
        rules.append({"when": {"structured": False}, "then": [{"text": "{last}"}]})
    return {
        "key": str(surface),
        "rules": rules,
        "context_length": fault.window,
        **memory,
    }


# Running ------------------------------------------------------------------------------------------------------------

_running: ContextVar[Cell] = ContextVar("the cell that runs")


def pause_of_this_cell() -> None:
    """Take the place of the sleep before a retry."""
    _running.get().pause()


def run_all(stage: Stage, cells: list[tuple[str, Cell, Callable[[], None]]]) -> list[str]:
    """Run cells; return what differs from the table, and which of them hang."""
    found: list[str] = []

    def guarded(name: str, cell: Cell, body: Callable[[], None]) -> None:
        _running.set(cell)
        try:
            body()
        except Exception as error:  # noqa: BLE001 - reported with the others
            found.append(f"{name}: {error if isinstance(error, CellError) else repr(error)}")

    hang = stage.run_all([(name, partial(guarded, name, cell, body)) for name, cell, body in cells])
    for name, cell, _ in cells:
        if name in hang:
            cell.proxy.close()  # which ends the wait of a call that hangs
    return found + [f"{name}: hangs" for name in hang]
