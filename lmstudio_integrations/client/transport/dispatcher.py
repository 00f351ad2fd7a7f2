"""Starts, cancels and closes the calls of a client.

The flows of the client call it, from any thread; nothing here blocks. It submits the work to the pool of
`connections.py` on the I/O thread. That module and its event loop are imported with the first call, because importing
asyncio takes as long as importing the rest of the client.
"""

import itertools
import math
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from lmstudio_integrations._support.uninterrupted import uninterrupted
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.tasks import IOTask, T
from lmstudio_integrations.client.transport.telemetry import (
    API,
    LOADED,
    Connecting,
    connecting_of,
    is_on,
    run_outside_sdk,
)
from lmstudio_integrations.client.transport.waiters import LoopWaiter, Waiter, copied
from lmstudio_integrations.errors import LMStudioClientClosedError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Endpoint, Namespace
from lmstudio_integrations.protocol.envelope import dumps
from lmstudio_integrations.protocol.exchange import Exchange, Sink, Timeouts
from lmstudio_integrations.protocol.session import ClientSession, client_closed
from lmstudio_integrations.types.files import Origin

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from lmstudio_integrations.client.transport.connections import Place, Pool
    from lmstudio_integrations.client.transport.io_thread import IOThread

WaiterT_co = TypeVar("WaiterT_co", bound=Waiter, covariant=True)
NO_TIMEOUTS: Timeouts = {}

_owners = itertools.count(1)


class Call(Generic[WaiterT_co]):
    """A call that was started. If it is garbage-collected before its end, the server stops the work.

    Attributes:
        waiter: Receives the response.
        connecting: Records how the connection is made, if the program traces and nothing has reported it yet.
    """

    __slots__ = ("_exchange", "_io", "_place", "connecting", "nothing_to_stop", "waiter")

    def __init__(
        self,
        io: "IOThread",
        place: "Place",
        exchange: Exchange,
        waiter: WaiterT_co,
        connecting: Connecting | None = None,
    ) -> None:
        self.waiter: WaiterT_co = waiter
        self._io = io
        self._place = place
        self._exchange = exchange
        self.connecting: Connecting | None = connecting
        self.nothing_to_stop: bool = False
        """Whether the call is closed, or its caller has received the packet that ends it."""

    def cancel(self) -> None:
        """Ask the server to stop; what still arrives is delivered."""
        self._io.submit(pool_of(self._io).change_session, self._place, ClientSession.cancel, self._exchange)
        self._io.yield_to()

    def close(self, error: BaseException | None = None, *, at_once: bool = False) -> None:
        """Ask the server to stop and discard what still arrives.

        Args:
            error: Wakes a waiting caller.
            at_once: Whether to let the I/O thread send that before this returns, which takes it about 0.1 ms.
        """
        if not (self.nothing_to_stop or self.waiter.done):
            self.nothing_to_stop = True
            self._io.submit(pool_of(self._io).change_session, self._place, ClientSession.close, self._exchange, error)
            if at_once:
                self._io.yield_to()
        if self.connecting is not None:
            self.report_connection()

    def report_connection(self) -> None:
        """Make the span of the connection, if the call had to wait for it."""
        connecting, self.connecting = self.connecting, None
        if connecting is not None:
            run_outside_sdk(connecting.report, self.waiter.error, submit=self._io.submit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The last resort: the `finally` of an async generator never runs if its loop is closed first.
        self.close()


class Dispatcher(Generic[WaiterT_co]):
    """What a client and its handles share.

    Args:
        target: Which server, and with which credentials.
        timeouts: The timeouts of every call that has none of its own.
        make_waiter: How this client's callers wait.
        keep_idle: Seconds for which an idle connection is kept open for this client.
    """

    trace_context: "Context | None" = None
    """The OpenTelemetry context of the traced operation that this dispatcher is part of."""
    is_traced: bool = True
    """Whether its operations are traced, if the program traces."""
    is_movable: bool = False
    """Whether another host can take its calls, if this one stops responding before it begins to."""

    def __init__(
        self,
        target: Target,
        timeouts: Timeouts,
        make_waiter: "Callable[[IOThread], WaiterT_co]",
        keep_idle: float = math.inf,
    ) -> None:
        self.target = target
        self.timeouts = timeouts
        self.max_retries = 0
        """How often a failed call is retried; the flows of the client do that."""
        self.load_times: list[float] = []
        """Seconds that each model load of this operation took."""
        self._make_waiter = make_waiter
        self._keep_idle = keep_idle
        self._owner = next(_owners)
        self._started_at: float | None = None
        # Never read. It keeps the original alive as long as a copy, because its finalizer closes the calls of both.
        self._original: Self | None = None
        self._wrap_sink: Callable[[Sink], Sink] | None = None
        self._used: set[IOThread] = set()
        self._finalizer = weakref.finalize(self, _close_owner, self._used, self._owner)
        self._finalizer.atexit = False  # `IOThread` closes everything then

    def with_timeouts(self, timeouts: Timeouts) -> Self:
        """Return a dispatcher with other timeouts."""
        return self._copy(timeouts=_merged(self.timeouts, timeouts))

    def with_retries(self, max_retries: int) -> Self:
        """Return a dispatcher whose failed calls are retried."""
        return self._copy(max_retries=max_retries)

    def in_background(self) -> "Dispatcher[Any]":
        """Return a dispatcher for coroutines on the I/O thread. It is not traced: exporters may block."""
        return self._copy(_make_waiter=LoopWaiter, is_traced=False)

    @property
    def is_async(self) -> bool:
        """Whether the callers of this client are coroutines, so that async callbacks can be awaited."""
        return self._make_waiter is LoopWaiter

    def with_waiters(self, make_waiter: "Callable[[IOThread], Waiter]") -> "Dispatcher[Any]":
        """Return a dispatcher whose callers wait in another way."""
        return self._copy(_make_waiter=make_waiter)

    def movable(self) -> Self:
        """Return a dispatcher whose calls another host can take."""
        return self._copy(is_movable=True)

    def with_sinks(self, wrap: Callable[[Sink], Sink]) -> Self:
        """Return a dispatcher whose calls deliver to wrapped sinks; each is wrapped on the I/O thread."""
        return self._copy(_wrap_sink=wrap)

    def with_trace(self, context: "Context") -> Self:
        """Return a dispatcher whose connections and loads are traced as parts of an operation."""
        return self._copy(trace_context=context)

    def for_operation(self, timeouts: Timeouts = NO_TIMEOUTS, started_at: float | None = None) -> Self:
        """Return a dispatcher for one operation of several calls, whose total timeout starts now, or has started."""
        if self._started_at is None:
            started_at = time.monotonic() if started_at is None else started_at
            return self._copy(timeouts=_merged(self.timeouts, timeouts), _started_at=started_at, load_times=[])
        return self.with_timeouts(timeouts) if timeouts else self  # it is part of an operation already

    def _copy(self, **changes: Any) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _original=self, **changes)
        return copy

    @property
    def elapsed(self) -> float:
        """Seconds since the current operation began; 0 outside of one."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    @property
    def remaining_time(self) -> float | None:
        """Seconds until `timeout` expires for the operation; `None` without one."""
        timeout = self.timeouts.get("timeout")
        return None if timeout is None else timeout - self.elapsed

    def start(
        self,
        namespace: Namespace,
        endpoint: Endpoint,
        parameter: Mapping[str, Any] | None = None,
        *,
        operation: str = "RPC",
    ) -> Call[WaiterT_co]:
        """Start a call.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
            LMStudioValueError: If the parameter cannot be written as JSON.
        """
        return self.start_all(namespace, endpoint, (parameter,), operation=operation)[0]

    def start_all(
        self,
        namespace: Namespace,
        endpoint: Endpoint,
        parameters: Sequence[Mapping[str, Any] | None],
        *,
        operation: str = "RPC",
    ) -> list[Call[WaiterT_co]]:
        """Start several calls, at least one, of one endpoint on one model; they are sent in one write. See `start`."""
        io, now = self._io(), time.monotonic()
        place: Place = self.target, namespace
        first, specifier = parameters[0], None
        started = now if self._started_at is None else self._started_at
        # Calls with this timeout wait in the queue of a model instance; the session restarts it when the queue moves.
        if first is not None and endpoint.timeout_name == "queue_timeout":
            specifier = dumps(first.get("modelSpecifier") or first.get("specifier"))
        connecting = None
        if API in LOADED and self.is_traced and is_on():
            connecting = connecting_of(self.target.address, self.trace_context)
        calls: list[Call[WaiterT_co]] = []
        exchanges: list[Exchange] = []
        for parameter in parameters:
            try:
                text = None if parameter is None else dumps(parameter)
            except (TypeError, ValueError, RecursionError) as error:
                reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
                raise LMStudioValueError(f"{operation}: an argument cannot be written as JSON: {reason}") from error
            waiter = self._make_waiter(io)
            exchange = Exchange(
                endpoint,
                text,
                waiter,
                self.timeouts,
                started,
                operation,
                self._owner,
                since=now,
                specifier=specifier,
                movable=self.is_movable,
            )
            exchanges.append(exchange)
            calls.append(Call(io, place, exchange, waiter, None if calls else connecting))
        io.submit(
            partial(
                _start,
                pool_of(io),
                place,
                exchanges,
                keep_idle=self._keep_idle,
                client=self._finalizer,
                wrap=self._wrap_sink,
                connecting=connecting,
            )
        )
        return calls

    def run_task(self, work: Callable[[], Coroutine[Any, Any, T]]) -> IOTask[T]:
        """Start a coroutine on the I/O thread; closing the client cancels it.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
        """
        io = self._io()
        task = IOTask(io, self._make_waiter(io), work, self._owner)
        io.submit(_start_task, pool_of(io), task, self._finalizer)
        return task

    def pause(self, seconds: float) -> IOTask[None]:
        """Start a pause, capped by the remaining time of the operation; closing the client ends it."""
        from asyncio import sleep  # noqa: PLC0415 - lazy: keeps import cheap

        remaining = self.remaining_time
        return self.run_task(lambda: sleep(seconds if remaining is None else max(0.0, min(seconds, remaining))))

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the I/O thread."""
        io_thread().submit(function, *args)

    def make_waiter(self) -> WaiterT_co:
        """Return a waiter that belongs to no call."""
        return self._make_waiter(io_thread())

    def shared(self, kind: type[T]) -> T:
        """Return the object of a type that all clients of this process share for this server."""
        objects, key = io_thread().shared, (self.target.address, kind)
        found: T = objects.get(key) or objects.setdefault(key, kind())
        return found

    @property
    def upload_scope(self) -> object:
        """The server, the process and the socket that uploads belong to. In another scope, upload a file again.

        Read it before an upload: if the socket is lost during that, the file is uploaded once more than necessary.
        """
        io = io_thread()
        place: Place = self.target, "files"
        return place, io, pool_of(io).losses[place]

    def keep_upload_alive(self, origin: Origin) -> None:
        """Keep the connection for files open while an uploaded file is in use."""
        io, owner = io_thread(), next(_owners)
        io.submit(pool_of(io).get, (self.target, "files"), owner, math.inf)
        weakref.finalize(origin, _close_owner, {io}, owner).atexit = False

    def close(self) -> None:
        """Close everything that this client has open, and drop its references to connections."""
        self._finalizer()

    def _io(self) -> "IOThread":
        """Return the I/O thread, to be used by this client from now on."""
        if not self._finalizer.alive:
            raise LMStudioClientClosedError("the client is closed; make a new one")
        io = io_thread()
        if io not in self._used:
            self.target.credentials()  # raises here, in the caller, if the token is malformed
            self._used.add(io)
        return io

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("clients and model handles cannot be pickled; make a client in the other process")


def _merged(timeouts: Timeouts, changes: Timeouts) -> Timeouts:
    return {**timeouts, **changes} if changes else timeouts


@cache
def _io_types() -> "tuple[type[IOThread], type[Pool]]":
    return uninterrupted(_import_io_types)


def _import_io_types() -> "tuple[type[IOThread], type[Pool]]":
    from lmstudio_integrations.client.transport.connections import Pool  # noqa: PLC0415 - lazy: keeps import cheap
    from lmstudio_integrations.client.transport.io_thread import IOThread  # noqa: PLC0415 - lazy: keeps import cheap

    return IOThread, Pool


def io_thread() -> "IOThread":
    """Return the thread that owns the sockets; the first call starts it."""
    return _io_types()[0].current()


def pool_of(io: "IOThread") -> "Pool":
    """Return the connections of an I/O thread. Only the thread itself uses them."""
    return _io_types()[1].of(io)


# On the I/O thread --------------------------------------------------------------------------------------------------


def _start(
    pool: "Pool",
    place: "Place",
    exchanges: Sequence[Exchange],
    *,
    keep_idle: float,
    client: "weakref.finalize[..., Any]",
    wrap: Callable[[Sink], Sink] | None,
    connecting: Connecting | None,
) -> None:
    try:
        if wrap is not None:
            for exchange in exchanges:
                exchange.sink = wrap(exchange.sink)
        if client.alive:
            pool.get(place, exchanges[0].owner, keep_idle).start(exchanges, connecting)
            return
        error: Exception = client_closed()  # the client was closed, or collected, before this ran
    except Exception as problem:  # noqa: BLE001 - the callers wait for it; the event loop would only log it
        error = problem
    for exchange in exchanges:
        exchange.finish(copied(error))


def _start_task(pool: "Pool", task: IOTask[Any], client: "weakref.finalize[..., Any]") -> None:
    if client.alive:
        pool.tasks.add(task)
        task.begin()
    else:  # the client was closed, or collected, before this ran
        task.waiter.finish(client_closed())


# From any thread ----------------------------------------------------------------------------------------------------


def _close_owner(used: "set[IOThread]", owner: int) -> None:
    for io in tuple(used):  # another thread may be making its first call
        io.submit(pool_of(io).close_owner, owner)
