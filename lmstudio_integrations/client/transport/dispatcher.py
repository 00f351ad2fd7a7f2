"""One client's way to the server: starts calls, can cancel them from anywhere, and lets go of them all at once.

The callers' side of `_connection.py`: nothing here blocks, and everything may be called from any thread. That side, and
the event loop it runs in, is loaded with the first call: asyncio takes as long to import as the rest of the client.
"""

import itertools
import math
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from lmstudio_integrations.client.transport.addresses import Target
from lmstudio_integrations.client.transport.tasks import IOTask
from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.errors import LMStudioClientClosedError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Endpoint, Namespace
from lmstudio_integrations.protocol.envelope import dumps
from lmstudio_integrations.protocol.exchange import Exchange, Timeouts
from lmstudio_integrations.protocol.session import client_closed
from lmstudio_integrations.types.files import Origin

if TYPE_CHECKING:
    from lmstudio_integrations.client._server_models import ServerModels
    from lmstudio_integrations.client._turns import Turn, Turns
    from lmstudio_integrations.client.transport.connections import Pool
    from lmstudio_integrations.client.transport.flight import Flight
    from lmstudio_integrations.client.transport.io_thread import IOThread

T = TypeVar("T")
WaiterT_co = TypeVar("WaiterT_co", bound=Waiter, covariant=True)

FOR_EVER = math.inf

NO_TIMEOUTS: Timeouts = {}

_owners = itertools.count(1)


class Call(Generic[WaiterT_co]):
    """A call that was started. Dropping it before its end stops the work on the server.

    Attributes:
        waiter: Where its answers come in.
    """

    __slots__ = ("_exchange", "_io", "_released", "_where", "waiter")

    def __init__(self, io: "IOThread", where: tuple[Target, Namespace], exchange: Exchange, waiter: WaiterT_co) -> None:
        self.waiter: WaiterT_co = waiter
        self._io = io
        self._where = where
        self._exchange = exchange
        self._released = False

    def cancel(self) -> None:
        """Ask the server to stop; what still comes is delivered."""
        self._io.submit(_cancel, self._io, self._where, self._exchange)

    def release(self) -> None:
        """Take note that the packet which ends the call has been seen."""
        self._released = True

    def abandon(self, error: BaseException | None = None) -> None:
        """Ask the server to stop and drop what still comes, unless the call has ended; whoever waits gets the error."""
        if not (self._released or self.waiter.done):
            self._released = True
            self._io.submit(_abandon, self._io, self._where, self._exchange, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def __del__(self) -> None:
        # The last resort: a `finally` of an async generator never runs when its loop is closed first.
        self.abandon()


class Dispatcher(Generic[WaiterT_co]):
    """What a client and its handles share.

    Args:
        target: Which server, as whom.
        timeouts: The limits of every call that names none.
        make_waiter: How this client's callers wait.
        keep: Seconds for which an idle connection is kept open for this client.
    """

    def __init__(
        self,
        target: Target,
        timeouts: Timeouts,
        make_waiter: "Callable[[IOThread], WaiterT_co]",
        keep: float = FOR_EVER,
    ) -> None:
        self.target = target
        self.timeouts = timeouts
        self._make_waiter = make_waiter
        self._keep = keep
        self._owner = next(_owners)
        self._since: float | None = None
        self._original: Self | None = None
        self.turn: Turn | None = None
        """The turn that the calls keep until they have ended."""
        self._load_times: list[float] = []
        self._used: set[IOThread] = set()
        self._finalizer = weakref.finalize(self, _leave, self._used, self._owner)
        self._finalizer.atexit = False

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return not self._finalizer.alive

    def with_timeouts(self, timeouts: Timeouts) -> Self:
        """Return this dispatcher with limits of its own."""
        return self._like(timeouts, self._since)

    def for_one(self, timeouts: Timeouts = NO_TIMEOUTS) -> Self:
        """Return this dispatcher for one operation of several calls, whose total timeout counts from now."""
        if self._since is not None and not timeouts:
            return self  # it is part of an operation already
        like = self._like(timeouts, self._since or time.monotonic())
        if self._since is None:
            like._load_times = []  # noqa: SLF001 - it is one of us
        return like

    def _like(self, timeouts: Timeouts, since: float | None) -> Self:
        like = object.__new__(type(self))
        limits = {**self.timeouts, **timeouts} if timeouts else self.timeouts
        like.__dict__.update(self.__dict__, timeouts=limits, _since=since, _original=self)
        return like

    @property
    def models(self) -> "ServerModels":
        """What this process knows of the models of the server."""
        known, address = io_thread().models, self.target.address
        found: ServerModels = known.get(address) or known.setdefault(address, _server_models()())
        return found

    def with_turn(self, turn: "Turn") -> Self:
        """Return this dispatcher for calls that keep a turn until they have ended."""
        like = self._like(self.timeouts, self._since)
        like.turn = turn
        return like

    def wait_for_turn(self, turn: "Turn") -> IOTask[None]:
        """Start to wait for a turn; `end_turn` must follow, whatever comes of it."""
        turns, queue_timeout, left = self.models.turns, self.timeouts.get("queue_timeout"), self.time_left
        return self.run_task(lambda: turns.wait(turn, queue_timeout, left))

    def wait_for_flight(self, flight: "Flight") -> IOTask[None]:
        """Start to wait for the work of another caller."""
        left = self.time_left
        return self.run_task(lambda: flight.wait(left))

    def end_flight(self, flight: "Flight", error: Exception | None) -> None:
        """Wake those who wait for the work of this caller."""
        io_thread().submit(flight.end, error)

    def end_turn(self, turn: "Turn") -> None:
        """Record that an operation has ended which has a turn, or waits for one."""
        io_thread().submit(self.models.turns.end, turn)

    def pause(self, seconds: float) -> IOTask[None]:
        """Start to wait, for no longer than the operation may take; closing the client ends it."""
        left = self.time_left
        return self.run_task(lambda: _sleep(seconds if left is None else max(0.0, min(seconds, left))))

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began of which this is part; 0 if it is part of none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def record_load(self, began: float) -> None:
        """Record that a model was loaded for the operation, from a moment of `elapsed` until now."""
        assert self._since is not None, "a model is loaded by an operation"
        self._load_times.append(self.elapsed - began)

    def take_load_time(self) -> float | None:
        """Return the seconds that loads took since the operation last called this; `None` if there were none."""
        seconds = sum(self._load_times) if self._load_times else None
        self._load_times.clear()
        return seconds

    @property
    def time_left(self) -> float | None:
        """Seconds until `timeout` expires for the operation; `None` without one."""
        timeout = self.timeouts.get("timeout")
        return None if timeout is None else timeout - self.elapsed

    def start(
        self,
        namespace: Namespace,
        endpoint: Endpoint,
        parameter: Mapping[str, Any] | None = None,
        *,
        doing: str = "RPC",
    ) -> Call[WaiterT_co]:
        """Start a call.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
            LMStudioValueError: If the parameter cannot be written as JSON.
        """
        (call,) = self.start_all(namespace, endpoint, (parameter,), doing=doing)
        return call

    def start_all(
        self,
        namespace: Namespace,
        endpoint: Endpoint,
        parameters: Sequence[Mapping[str, Any] | None],
        *,
        doing: str = "RPC",
    ) -> list[Call[WaiterT_co]]:
        """Start several calls of one endpoint, which are sent in one go. See `start`."""
        if self.closed:
            raise _closed()
        self.target.credentials()
        io = io_thread()
        self._used.add(io)
        where: tuple[Target, Namespace] = self.target, namespace
        now = time.monotonic()
        started = self._since or now
        calls: list[Call[WaiterT_co]] = []
        exchanges: list[Exchange] = []
        specifier_of = _Specifiers(endpoint)
        for parameter in parameters:
            waiter, text = self._make_waiter(io), None if parameter is None else _json_of(parameter, doing)
            exchange = Exchange(endpoint, text, waiter, self.timeouts, started, doing, self._owner, since=now)
            exchange.specifier = specifier_of(parameter)
            exchanges.append(exchange)
            calls.append(Call(io, where, exchange, waiter))
        if self.turn is not None:
            io.submit(_keep_turn, self.models.turns, self.turn, exchanges)
        io.submit(_start, io, where, exchanges, self._keep, self._finalizer)
        return calls

    def run_task(self, work: Callable[[], Coroutine[Any, Any, T]]) -> IOTask[T]:
        """Start a coroutine on the I/O thread; closing the client cancels it.

        Raises:
            LMStudioClientClosedError: If the client was closed.
        """
        if self.closed:
            raise _closed()
        io = io_thread()
        self._used.add(io)
        task = IOTask(io, self._make_waiter(io), work, self._owner)
        io.submit(_start_task, io, task, self._finalizer)
        return task

    def waiter(self) -> WaiterT_co:
        """Return something to wait for that is no call."""
        return self._make_waiter(io_thread())

    def finish(self, waiter: Waiter, error: BaseException | None) -> None:
        """Let somebody who waits for no call go on."""
        io_thread().submit(waiter.finish, error)

    @property
    def home(self) -> object:
        """As whom the server knows what this client uploads."""
        return self.target, io_thread()

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("clients and model handles cannot be pickled; make a client in the other process")

    def guard(self, origin: Origin) -> None:
        """Keep the connection for files open while an uploaded file is in use, and note on the file if it is lost."""
        origin.expired, origin.home = False, self.home
        io, owner = io_thread(), next(_owners)
        io.submit(_guard, io, (self.target, "files"), origin, owner)
        weakref.finalize(origin, _leave, {io}, owner).atexit = False

    def close(self) -> None:
        """Stop everything that this client has open, and let go of its connections."""
        self._finalizer()


class _Specifiers:
    """Finds the model instance in whose queue a request waits, as JSON text; calls of one batch share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._queued = endpoint.timeout_name == "queue_timeout"
        self._last: object = None
        self._text: str | None = None

    def __call__(self, parameter: Mapping[str, Any] | None) -> str | None:
        if not self._queued or parameter is None:
            return None
        specifier = parameter.get("modelSpecifier") or parameter.get("specifier")
        if specifier is not self._last:
            self._last, self._text = specifier, dumps(specifier)
        return self._text


def _closed() -> LMStudioClientClosedError:
    return LMStudioClientClosedError("the client is closed; make a new one")


def _json_of(parameter: Mapping[str, Any], doing: str) -> str:
    try:
        return dumps(parameter)
    except (TypeError, ValueError) as error:
        raise LMStudioValueError(f"{doing}: an argument holds what JSON has no form for: {error}") from error


def io_thread() -> "IOThread":
    """Return the thread that owns the sockets; it is started by the first call."""
    return _threads().current()


@cache
def _threads() -> "type[IOThread]":
    from lmstudio_integrations.client.transport.io_thread import IOThread  # noqa: PLC0415 - with the first call

    return IOThread


@cache
def _pools() -> "type[Pool]":
    from lmstudio_integrations.client.transport.connections import Pool  # noqa: PLC0415 - with the first call

    return Pool


@cache
def _server_models() -> "type[ServerModels]":
    from lmstudio_integrations.client._server_models import ServerModels  # noqa: PLC0415 - with the first call

    return ServerModels


# On the I/O thread --------------------------------------------------------------------------------------------------


async def _sleep(seconds: float) -> None:
    from asyncio import sleep  # noqa: PLC0415 - with the first call

    await sleep(seconds)


def _keep_turn(turns: "Turns", turn: "Turn", exchanges: Sequence[Exchange]) -> None:
    for exchange in exchanges:
        exchange.sink = turns.kept_by(exchange.sink, turn)


def _start(
    io: "IOThread",
    where: tuple[Target, Namespace],
    exchanges: Sequence[Exchange],
    keep: float,
    client: "weakref.finalize[..., Any]",
) -> None:
    if not client.alive:  # it was closed, or dropped, on the way here
        for exchange in exchanges:
            exchange.finish(client_closed())
        return
    connection = _pools().of(io).get(*where)
    connection.users[exchanges[0].owner] = keep
    connection.start(exchanges)


def _start_task(io: "IOThread", task: IOTask[Any], client: "weakref.finalize[..., Any]") -> None:
    if client.alive:
        _pools().of(io).tasks.add(task)
        task.begin()
    else:  # it was closed, or dropped, on the way here
        task.waiter.finish(client_closed())


def _guard(io: "IOThread", where: tuple[Target, Namespace], origin: Origin, owner: int) -> None:
    connection = _pools().of(io).get(*where)
    connection.users[owner] = FOR_EVER
    connection.watch(origin)


def _cancel(io: "IOThread", where: tuple[Target, Namespace], exchange: Exchange) -> None:
    connection = _pools().of(io).find(*where)
    if connection is not None:
        connection.cancel(exchange)


def _abandon(io: "IOThread", where: tuple[Target, Namespace], exchange: Exchange, error: BaseException | None) -> None:
    connection = _pools().of(io).find(*where)
    if connection is not None:
        connection.abandon(exchange, error)


def _leave_pool(io: "IOThread", owner: int) -> None:
    _pools().of(io).leave(owner)


# From anywhere ------------------------------------------------------------------------------------------------------


def _leave(used: "set[IOThread]", owner: int) -> None:
    for io in tuple(used):  # another thread may just be making its first call
        io.submit(_leave_pool, io, owner)
