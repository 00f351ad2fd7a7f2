"""Operations: the calls that one request of a user makes, with a common deadline and a common listener.

The flows of the client start calls with an `Operation`, from any thread; nothing here blocks. It submits the work to
the connections on the I/O thread. The flows `call`, `call_all` and `read_channel` are the steps of all other flows.
"""

import logging
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from pydantic_core import ValidationError

from lmstudio_integrations._support.text import dumps, shortened
from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.client.concurrency.cancel_scope import add_to_scope, check_scope
from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.concurrency.io_thread import IOThread, on_io_thread
from lmstudio_integrations.client.concurrency.mailboxes import Mailbox
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.connections import ConnectionKey, Connections
from lmstudio_integrations.client.transport.listener import NOBODY, ConnectionReport, Listener
from lmstudio_integrations.errors import LMStudioCancelledError, LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Endpoint, Namespace, channel, rpc
from lmstudio_integrations.protocol.errors import copy_of
from lmstudio_integrations.protocol.exchange import Exchange, Timeouts, exchange_type
from lmstudio_integrations.protocol.session import ClientSession, client_closed, closed_early

logger: logging.Logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 32
"""Maximum number of calls in flight at once, for each `call_all`."""

_DECODE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What decoding raises when a response has an unexpected form."""


class CallbackEffect(partial[Any]):
    """A call of a user's callback. It runs outside of `decode_errors`: its errors are not the server's."""


class OpenRequest:
    """A call or a channel that was started. If it is garbage-collected before its end, the server stops the work.

    Attributes:
        mailbox: Receives the response.
        exchange: Its state, which belongs to the I/O thread.
        connection: Receives how the connection is made, if anyone listens and nothing has reported it yet.
        server_is_done: Whether there is nothing to stop: it is closed, or its caller has received the packet that
            ends it.
    """

    __slots__ = ("__weakref__", "_io", "_key", "connection", "exchange", "mailbox", "server_is_done")

    def __init__(
        self,
        io: IOThread,
        key: ConnectionKey,
        exchange: Exchange,
        mailbox: Mailbox,
        connection: ConnectionReport | None,
    ) -> None:
        self.mailbox: Mailbox = mailbox
        self._io = io
        self._key = key
        self.exchange: Exchange = exchange
        self.connection: ConnectionReport | None = connection
        self.server_is_done: bool = False

    @property
    def was_sent(self) -> bool:
        """Whether the request is on its way to the server."""
        return self.exchange.id > 0

    def _change(self, change: Callable[..., None], *arguments: object) -> None:
        self._io.submit(Connections.of(self._io).change_session, self._key, change, self.exchange, *arguments)

    def cancel(self) -> None:
        """Ask the server to stop; what still arrives is delivered."""
        self._change(ClientSession.cancel)
        self._io.yield_to()

    def close(self, error: BaseException | None = None, *, at_once: bool = False) -> None:
        """Ask the server to stop and discard what still arrives.

        Args:
            error: Wakes a waiting caller.
            at_once: Whether to let the I/O thread send that before this returns, which takes it about 0.1 ms.
        """
        if not (self.server_is_done or self.mailbox.done):
            self.server_is_done = True
            self._change(ClientSession.close, error)
            if error is not None and self._io.is_current:
                self.mailbox.abort(error)
            if at_once:
                self._io.yield_to()
        if self.connection is not None:
            self.report_connection()

    def abort(self, error: LMStudioCancelledError) -> None:
        """Ask the server to stop; a waiting caller gets the error."""
        self.close(error)

    def report_connection(self) -> None:
        """Report the connection, if the request had to wait for it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.report(self.mailbox.error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The last resort: the `finally` of an async generator never runs if its loop is closed first.
        if hasattr(self, "server_is_done"):  # an exception may have been raised in the middle of `__init__`
            self.close()


class Operation:
    """One operation of a client: calls that share a deadline.

    Args:
        context: Whose operation it is.
        timeouts: Timeouts that differ from the client's.
        listener: Called with what happens in it; by default that of the client.

    Attributes:
        attempt: The number of the attempt; one on a model may be begun again.
        load_times: Seconds that each model load took.
    """

    timeouts: Timeouts

    def __init__(
        self, context: ClientContext, timeouts: Timeouts = NO_TIMEOUTS, *, listener: Listener | None = None
    ) -> None:
        self.context: ClientContext = context
        self.listener: Listener = listener or context.listener
        self.attempt: int = 0
        self._own_timeouts = timeouts
        self._begin()

    def _begin(self) -> None:
        """Begin the next attempt, with the whole of `total_timeout`."""
        context = self.context
        self.attempt += 1
        self.timeouts = {**context.timeouts, **self._own_timeouts}
        self.load_times: list[float] = []
        self._started_at = time.monotonic() if context.started_at is None else context.started_at

    def with_timeouts(self, timeouts: Timeouts) -> "Operation":
        """Return an operation that is a part of this one, with other timeouts."""
        return Operation(self.child_context(), {**self.timeouts, **timeouts})

    def child_context(self) -> ClientContext:
        """Return a context whose operations are parts of this one."""
        return self.context.child(self._started_at, self.listener, can_fail_over=self.context.can_fail_over)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started_at

    @property
    def remaining_time(self) -> float | None:
        """Seconds until `total_timeout` expires; `None` without one."""
        timeout = self.timeouts.get("total_timeout")
        return None if timeout is None else timeout - self.elapsed

    @property
    def queue_name(self) -> str | None:
        """What the queue of its model instance is called, if not by the specifier of its calls."""
        return None

    # Starting calls ---------------------------------------------------------------------------------------------------

    def start(
        self,
        namespace: Namespace,
        endpoint: Endpoint,
        *parameters: Mapping[str, Any] | None,
        label: str,
        channel: OpenRequest | None = None,
    ) -> list[OpenRequest]:
        """Hand calls of one endpoint to the I/O thread, which sends them in one write; whoever waits yields a request.

        Args:
            namespace: The namespace.
            endpoint: The endpoint.
            parameters: The parameter of each call, of at least one.
            label: What errors call them.
            channel: The open channel on which they run, if they are calls of a tool session.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
            LMStudioValueError: If a parameter cannot be written as JSON.
            LMStudioCancelledError: If it belongs to a scope that was cancelled.
        """
        check_scope()
        context, io, now = self.context, self.context.io(), time.monotonic()
        key: ConnectionKey = context.target, namespace
        first, specifier, queue_name = parameters[0], None, None
        # Calls with this timeout wait in the queue of a model instance; the session restarts it when the queue moves.
        if first is not None and endpoint.timeout_name == "queue_timeout":
            named = first.get("modelSpecifier") or first.get("specifier")  # a generator has none
            specifier, queue_name = named and dumps(named), self.queue_name
        listener = self.listener
        connection = None if listener is NOBODY else listener.on_connect(context.target.address)
        requests: list[OpenRequest] = []
        exchanges: list[Exchange] = []
        for parameter in parameters:
            mailbox = context.mailbox_type(io)
            exchange = exchange_type(endpoint)(
                endpoint,
                _as_json(parameter, label),
                mailbox,
                self.timeouts,
                self._started_at,
                label,
                context.client_id,
                since=now,
                specifier=specifier,
                queue_name=queue_name,
                can_fail_over=context.can_fail_over,
                channel=None if channel is None else channel.exchange,
            )
            exchanges.append(exchange)
            requests.append(OpenRequest(io, key, exchange, mailbox, None if requests else connection))
        io.submit(
            partial(
                _start,
                context.finalizer,
                Connections.of(io),
                key,
                exchanges,
                keep_idle=context.keep_idle,
                connection=connection,
            )
        )
        for request in requests:
            add_to_scope(request)
        return requests

    # Flows ------------------------------------------------------------------------------------------------------------

    def call(
        self,
        namespace: Namespace,
        name: str,
        parameter: Mapping[str, Any] | None = None,
        read: "Callable[[Any], T] | None" = None,
        *,
        label: str,
    ) -> Flow[T]:
        """Make a call and return its result, decoded by `read`."""
        (request,) = self.start(namespace, rpc(namespace, name), parameter, label=label)
        with request:
            (result,) = yield request
            if read is None:
                return cast("T", result)
            with decode_errors(label):
                return read(result)

    def call_all(
        self,
        namespace: Namespace,
        name: str,
        parameters: Sequence[Mapping[str, Any]],
        read: Callable[[Any], T],
        *,
        label: str,
    ) -> Flow[list[T]]:
        """Make many calls, at most `MAX_IN_FLIGHT` at once; return the decoded results in their order.

        Whenever at most half of that are still in flight, the next ones are started together, because one write for
        several calls costs little more than for one.
        """
        endpoint = rpc(namespace, name)
        requests: list[OpenRequest] = []
        results: list[T] = []
        try:
            for done in range(len(parameters)):
                sent = len(requests)
                if sent - done <= MAX_IN_FLIGHT // 2 and (due := parameters[sent : done + MAX_IN_FLIGHT]):
                    requests += self.start(namespace, endpoint, *due, label=label)
                (result,) = yield requests[done]
                try:
                    results.append(read(result))
                except _DECODE_ERRORS as error:
                    raise _unreadable(label, error) from error
        finally:
            for request in requests[len(results) :]:
                request.close()
            if requests and requests[0].connection is not None:
                requests[0].report_connection()
        return results

    def read_channel(
        self,
        namespace: Namespace,
        name: str,
        parameter: Mapping[str, Any] | None,
        read: Callable[[dict[str, Any]], CallbackEffect | T | None],
        *,
        label: str,
    ) -> Flow[T]:
        """Open a channel and read its packets until one of them gives the result; run the callbacks of the others.

        `read` returns `None` to ignore a packet, a `CallbackEffect` to run it, and anything else to end the channel
        with that result. So `T` must not include `None`.
        """
        (request,) = self.start(namespace, channel(namespace, name), parameter, label=label)
        with request:
            while batch := (yield request):
                for packet in batch:
                    with decode_errors(label):
                        result = read(packet)
                    if isinstance(result, CallbackEffect):
                        result()
                    elif result is not None:
                        request.server_is_done = True
                        return result
            raise closed_early(label)

    def pause(self, seconds: float) -> Flow[None]:
        """Wait, but no longer than the remaining time."""
        remaining = self.remaining_time
        yield from self.context.pause(seconds if remaining is None else max(0.0, min(seconds, remaining)))


@on_io_thread
def _start(
    client: "weakref.finalize[..., Any]",
    connections: Connections,
    key: ConnectionKey,
    exchanges: Sequence[Exchange],
    *,
    keep_idle: float,
    connection: ConnectionReport | None,
) -> None:
    try:
        if client.alive:
            connections.get(key, exchanges[0].client_id, keep_idle).start(exchanges, connection)
            return
        error: Exception = client_closed()  # the client was closed, or collected, before this ran
    except Exception as problem:  # noqa: BLE001 - the callers wait for it; the event loop would only log it
        error = problem
    for exchange in exchanges:
        exchange.finish(copy_of(error))


def _as_json(parameter: Mapping[str, Any] | None, label: str) -> str | None:
    try:
        return None if parameter is None else dumps(parameter)
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise LMStudioValueError(f"{label}: an argument cannot be written as JSON: {reason}") from error


@contextmanager
def decode_errors(label: str) -> Generator[None]:
    """Turn every error in decoding a response into one `LMStudioProtocolError`."""
    try:
        yield
    except _DECODE_ERRORS as error:
        raise _unreadable(label, error) from error


def read_each(items: object, read: Callable[[Any], T | None], label: str) -> list[T]:
    """Return what the items of a list are.

    Those that cannot be read are left out with a warning, because one of them must not hide the others.

    Args:
        items: The list, from a response.
        read: Returns what an item is; `None` leaves it out.
        label: What the response is, for the message.

    Raises:
        TypeError: If it is no list, or as `read` does, if it can read no item; if possible, one that names a member.
    """
    if not is_list(items):
        raise TypeError(f"expected an array; got {type(items).__name__}")
    found: list[T] = []
    errors: list[Exception] = []
    for item in items:
        try:
            value = read(item)
        except _DECODE_ERRORS as error:
            errors.append(error)
        else:
            if value is not None:
                found.append(value)
    if errors:
        clearest = next((each for each in errors if isinstance(each, KeyError | ValidationError)), errors[0])
        if not found:
            raise clearest
        reason = _what_is_wrong(clearest)
        logger.warning(
            "%s: left out %d of %d entries, which cannot be read: %s", label, len(errors), len(items), reason
        )
    return found


def _unreadable(label: str, error: Exception) -> LMStudioProtocolError:
    return LMStudioProtocolError(
        f"{label}: the server's response cannot be read: {_what_is_wrong(error)}; update LM Studio and this package"
    )


def _what_is_wrong(error: Exception) -> str:
    """Return what is wrong with a response. The error itself is the cause of ours, for people who debug it."""
    if isinstance(error, ValidationError):
        return ", ".join(
            ": ".join(filter(None, (".".join(map(str, each["loc"])), shortened(each["msg"]))))
            for each in error.errors(include_url=False)
        )
    if isinstance(error, KeyError):
        return f"it has no {shortened(repr(error.args[0]))}"
    return "a part of it has another form than expected"
