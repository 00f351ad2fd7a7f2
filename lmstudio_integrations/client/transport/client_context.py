"""What a client shares with its handles: which server they call, with which timeouts, and how they wait.

An `Operation` (`operation.py`) makes the calls. Nothing here blocks; any thread may call it.
"""

import math
import weakref
from asyncio import sleep
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from lmstudio_integrations.client.concurrency.cancel_scope import add_to_scope
from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.concurrency.io_thread import IOThread, on_io_thread
from lmstudio_integrations.client.concurrency.mailboxes import IOTask, LoopMailbox, Mailbox
from lmstudio_integrations.client.transport.connect.addresses import Address, Target
from lmstudio_integrations.client.transport.connections import ConnectionKey, Connections
from lmstudio_integrations.client.transport.listener import NOBODY, Listener, default_listener
from lmstudio_integrations.errors import LMStudioClientClosedError
from lmstudio_integrations.protocol.endpoints import Namespace
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.protocol.session import client_closed

NO_TIMEOUTS: Timeouts = {}


@dataclass(slots=True, eq=False)
class ClientId:
    """Stands for a client; all of its contexts share it.

    Attributes:
        block_has_ended: Whether it was closed at the end of its `with` block.
    """

    block_has_ended: bool = False


class ClientContext:
    """What a client and its handles share.

    Args:
        target: Which server, and with which credentials.
        timeouts: The timeouts of every call that has none of its own.
        mailbox_type: Where this client's callers wait.
        keep_idle: Seconds for which an idle connection is kept open for this client.
    """

    def __init__(
        self,
        target: Target,
        timeouts: Timeouts,
        mailbox_type: Callable[[IOThread], Mailbox],
        keep_idle: float = math.inf,
    ) -> None:
        self.target = target
        self.timeouts = timeouts
        self.keep_idle = keep_idle
        self._listener: Listener | None = None
        """That of the operation of which all operations of this context are parts; `None` if there is none."""
        self.max_retries = 0
        """How often a failed call is retried; the flows of the client do that."""
        self.started_at: float | None = None
        """When the operation began of which all operations of this context are parts."""
        self.can_fail_over = False
        """Whether another host can take its calls, if this one stops responding before it begins to."""
        self.client_id: ClientId = ClientId()
        self.mailbox_type = mailbox_type
        # Never read. It keeps the original alive as long as a copy, because its finalizer closes the calls of both.
        self._original: Self | None = None
        self._used: set[IOThread] = set()
        self.finalizer: weakref.finalize[..., Any] = weakref.finalize(self, _close_client, self._used, self.client_id)
        self.finalizer.atexit = False  # `IOThread` closes everything then

    def with_timeouts(self, timeouts: Timeouts) -> Self:
        """Return a context with other timeouts."""
        return self._copy(timeouts={**self.timeouts, **timeouts})

    def with_retries(self, max_retries: int) -> Self:
        """Return a context whose failed calls are retried."""
        return self._copy(max_retries=max_retries)

    def with_mailboxes(self, mailbox_type: Callable[[IOThread], Mailbox]) -> Self:
        """Return a context whose callers wait in another way."""
        return self._copy(mailbox_type=mailbox_type)

    def with_listener(self, listener: Listener) -> Self:
        """Return a context whose operations are parts of another one, which reports them."""
        return self._copy(_listener=listener)

    def child(self, started_at: float | None, listener: Listener, *, can_fail_over: bool) -> Self:
        """Return a context whose operations are parts of another one: they share its deadline and its listener."""
        return self._copy(started_at=started_at, _listener=listener, can_fail_over=can_fail_over)

    def in_background(self) -> Self:
        """Return a context for coroutines on the I/O thread. Nobody listens to it, because exporters may block."""
        return self._copy(mailbox_type=LoopMailbox, _listener=NOBODY)

    def _copy(self, **changes: Any) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _original=self, **changes)
        return copy

    @property
    def listener(self) -> Listener:
        """Called with what happens; read by each operation, as the program may configure a provider at any time."""
        return default_listener() if self._listener is None else self._listener

    @property
    def is_async(self) -> bool:
        """Whether the callers of this client are coroutines, so that async callbacks can be awaited."""
        return self.mailbox_type is LoopMailbox

    def new_mailbox(self) -> Mailbox:
        """Return a mailbox that belongs to no call."""
        return self.mailbox_type(IOThread.current())

    def run_task(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Flow[T]:
        """Run a coroutine on the I/O thread and return its result; closing the client cancels it.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
        """
        io = self.io()
        task = IOTask(io, self.mailbox_type(io), work, self.client_id)
        io.submit(_start_task, Connections.of(io), task, self.finalizer)
        add_to_scope(task)
        return (yield from task.result())

    def pause(self, seconds: float) -> Flow[None]:
        """Wait; closing the client ends the wait."""
        yield from self.run_task(lambda: sleep(seconds))

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on the I/O thread."""
        IOThread.current().submit(function, *args)

    @property
    def server(self) -> Address | None:
        """The server by one name for all its spellings; `None` as long as none was named or found."""
        address: Address | None = self.target.address or IOThread.current().shared.get((None, Address))
        return address.server if address else None

    def shared(self, kind: type[T], server: Address | None = None) -> T:
        """Return the object of a type that all clients of this process share for this server, or for another one."""
        objects, key = IOThread.current().shared, (server or self.target.address, kind)
        shared: T = objects.get(key) or objects.setdefault(key, kind())
        return shared

    def socket_scope(self, namespace: Namespace) -> object:
        """Return what stands for the server, the process and the socket of a namespace.

        What belongs to a socket, such as an uploaded file, is lost in another scope. Read it before the upload: if the
        socket is lost meanwhile, the file is uploaded once more than necessary.
        """
        io = IOThread.current()
        key: ConnectionKey = self.target, namespace
        return key, io, Connections.of(io).losses[key]

    def keep_open(self, namespace: Namespace, owner: object) -> None:
        """Keep the connection to a namespace open as long as an object is alive."""
        io, client_id = IOThread.current(), object()
        io.submit(Connections.of(io).get, (self.target, namespace), client_id, math.inf)
        weakref.finalize(owner, _close_client, {io}, client_id).atexit = False

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return not self.finalizer.alive

    def close(self, *, at_end_of_block: bool = False) -> None:
        """Close everything that this client has open, and drop its references to connections."""
        self.client_id.block_has_ended |= at_end_of_block and not self.is_closed
        self.finalizer()

    def io(self) -> IOThread:
        """Return the I/O thread, to be used by this client from now on.

        Raises:
            LMStudioClientClosedError: If the client was closed.
            LMStudioAuthenticationError: If the token is malformed.
        """
        if not self.finalizer.alive:
            reason = ", because its with block has ended" if self.client_id.block_has_ended else ""
            remedy = "call it inside of the block" if reason else "make a new one"
            raise LMStudioClientClosedError(f"the client is closed{reason}; {remedy}")
        io = IOThread.current()
        if io not in self._used:
            self.target.credentials()  # raises here, in the caller, if the token is malformed
            self._used.add(io)
        return io

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError("clients and model handles cannot be pickled; make a client in the other process")


@on_io_thread
def _start_task(connections: Connections, task: IOTask[Any], client: "weakref.finalize[..., Any]") -> None:
    if client.alive:
        connections.tasks.add(task)
        task.begin(connections.tasks.discard)
    else:  # the client was closed, or collected, before this ran
        task.mailbox.finish(client_closed())


def _close_client(used: set[IOThread], client_id: object) -> None:
    for io in list(used):  # one step, as another thread may be making its first call; `tuple` is none
        io.submit(Connections.of(io).close_client, client_id)
