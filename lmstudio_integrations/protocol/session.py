"""The client's side of one connection, without I/O (protocol §2, §3).

A session turns calls into frames and frames into what the callers wait for. One thread owns it; it holds no
lock, reads no clock and touches no socket: time is passed in, frames are taken from `data_to_send`.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations._secrets import HIDDEN
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioChannelClosedError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioTimeoutError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS, Channel, Endpoint, Rpc
from lmstudio_integrations.protocol.errors import error_object, to_exception
from lmstudio_integrations.protocol.prediction import LegacyPredictionError
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress

logger: logging.Logger = logging.getLogger(__name__)

Clocks = Mapping[str, float | None]
"""Limits in seconds by name of the clock; `None` switches one off."""

_ENDPOINT_IN_WARNING = re.compile(r"endpoint(?:Name)? = (\w+)")


class Sink(Protocol):
    """Where the answers to one call go. All methods are called by the owner of the session and must not block."""

    def put(self, item: Any) -> None:
        """Take a packet, or the result of an RPC."""

    def finish(self, error: BaseException | None) -> None:
        """Take note that nothing more comes."""

    def is_alive(self) -> bool:
        """Whether anybody can still be reached behind it."""
        ...


@dataclass(slots=True, eq=False)
class Exchange:
    """One call or channel, from the request to its end.

    Attributes:
        endpoint: What is called.
        parameter: The request, as JSON text.
        sink: Who waits.
        clocks: The limits.
        started: When the caller asked for the whole of which this is part.
        doing: What is being done, for messages of errors.
        owner: The client that asked, as a number.
        clock: The limit that runs now; `None` while the request waits in the server's queue.
        since: When that limit began to run; at first when this call was made, where that is later than `started`.
        id: The id on the wire, once it is sent.
        touched: Whether anything has come back.
        cancelled: Whether there is nothing to stop any more: the server was asked to, or has said its last word.
        held: A high surrogate that waits for its second half.
    """

    endpoint: Endpoint
    parameter: str | None
    sink: Sink
    clocks: Clocks
    started: float
    doing: str = "RPC"
    owner: int = 0
    clock: str | None = None
    since: float = 0.0
    id: int = 0
    touched: bool = False
    cancelled: bool = False
    held: str = ""

    def finish(self, error: BaseException | None) -> None:
        """Tell whoever waits that nothing more comes; once, and nothing after it."""
        sink, self.sink = self.sink, _NOBODY
        sink.finish(error)


class ClientSession:
    """State of one connection.

    Args:
        identifier: The client's identifier.
        passkey: The client's passkey.
        peer: The server, for messages of errors.
    """

    def __init__(self, identifier: str, passkey: str, peer: str = "LM Studio") -> None:
        self._peer = peer
        self._outbox: list[str] = [envelope.auth(identifier, passkey)]
        self._credentials = (identifier, passkey)
        self._backlog: list[Exchange] = []
        self._calls: dict[int, Exchange] = {}
        self._channels: dict[int, Exchange] = {}
        self._unknown: dict[str, str] = {}
        self._answered: dict[str, float] = {}
        self._next_id = 0
        self.ready: bool = False
        """Whether the server has let this client in."""

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not (self._calls or self._channels or self._backlog)

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for anything; what was abandoned may take the server long to end."""
        waiting = (*self._calls.values(), *self._channels.values(), *self._backlog)
        return any(exchange.sink is not _NOBODY for exchange in waiting)

    def data_to_send(self) -> list[str]:
        """Return the frames that are due, once."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def start(self, exchange: Exchange) -> None:
        """Send a request, or keep it until the server has let this client in."""
        if self.ready:
            self._send(exchange, exchange.since or exchange.started)
        else:
            exchange.clock, exchange.since = "connect_timeout", exchange.since or exchange.started
            self._backlog.append(exchange)

    def _send(self, exchange: Exchange, now: float) -> None:
        warned = self._unknown.get(exchange.endpoint.name)
        if warned is not None:
            # Asking again would use up the five warnings of this connection, and after them no answer comes at all.
            exchange.finish(_not_taken(exchange, LMStudioUnsupportedError, warned))
            return
        exchange.id = self._next_id = self._next_id + 1
        exchange.since = now
        endpoint = exchange.endpoint
        if isinstance(endpoint, Rpc):
            exchange.clock = "idle_timeout"
            self._calls[exchange.id] = exchange
            self._outbox.append(envelope.rpc_call(endpoint.name, exchange.id, exchange.parameter))
        else:
            exchange.clock = endpoint.clock
            self._channels[exchange.id] = exchange
            self._outbox.append(envelope.channel_create(endpoint.name, exchange.id, exchange.parameter))
        exchange.parameter = None  # may be megabytes

    def cancel(self, exchange: Exchange) -> None:
        """Ask the server to stop; what still comes is delivered. Nothing happens if it has ended."""
        if exchange in self._backlog:
            self._backlog.remove(exchange)
            exchange.finish(None)
        elif self._channels.get(exchange.id) is exchange and not exchange.cancelled:
            exchange.cancelled = True
            assert isinstance(exchange.endpoint, Channel)
            if exchange.endpoint.stop:
                message = f'{{"type":"{exchange.endpoint.stop}"}}'
                self._outbox.append(envelope.channel_send(exchange.id, message))

    def abandon(self, exchange: Exchange, error: BaseException | None = None) -> None:
        """Ask the server to stop, and drop what still comes; whoever waits is told that nothing does."""
        exchange.finish(error)
        self.cancel(exchange)
        if self._calls.get(exchange.id) is exchange:
            del self._calls[exchange.id]

    def leave(self, owner: int) -> None:
        """Stop all that a client has open, and fail whoever still waits for it."""
        for exchange in [*self._calls.values(), *self._channels.values(), *self._backlog]:
            if exchange.owner == owner and exchange.sink is not _NOBODY:
                self.abandon(exchange, client_closed())

    def lost(self, error: Callable[[], BaseException]) -> None:
        """Fail everyone who waits, once, each with an exception of their own."""
        waiting = [*self._calls.values(), *self._channels.values(), *self._backlog]
        self._calls, self._channels, self._backlog = {}, {}, []
        for exchange in waiting:
            exchange.finish(error())

    def tick(self, now: float) -> None:
        """Fail whose clock has run out; stop the work on the server for them, and for those who have gone."""
        for exchange in self._calls.values():
            # A server answers calls of one kind one after the other: who waits in the queue sees that it is at work.
            exchange.since = max(exchange.since, self._answered.get(exchange.endpoint.name, exchange.since))
        for exchange in [*self._calls.values(), *self._channels.values(), *self._backlog]:
            expired = _expired(exchange, now, self._peer)
            if expired is not None or not exchange.sink.is_alive():
                self.abandon(exchange, expired)

    def receive(self, data: str | bytes, now: float) -> None:
        """Take in one frame.

        Raises:
            LMStudioAuthenticationError: If the server refuses this client; the connection is then of no use.
        """
        frame, slow = envelope.parse(data)
        if frame is None:
            logger.debug("dropped a frame that is no JSON object")
        elif not self.ready:
            self._authenticated(frame, now)
        else:
            try:
                if frame.get("type") == "channelSend":
                    self._on_packet(frame, now, slow=slow)
                else:
                    self._on_frame(frame, now)
            except (LookupError, TypeError, AttributeError, RecursionError) as error:
                logger.debug("dropped a malformed frame: %r", error)

    def _authenticated(self, frame: dict[str, Any], now: float) -> None:
        if frame.get("success") is True:
            self.ready = True
            backlog, self._backlog = self._backlog, []
            for exchange in backlog:
                self._send(exchange, now)
        elif frame.get("success") is False:
            reason = str(frame.get("error", "no reason given"))
            for credential in filter(None, self._credentials):  # servers name the identifier, half of a token
                reason = reason.replace(credential, HIDDEN)
            raise LMStudioAuthenticationError(
                f"LM Studio refused this client: {reason}; check the API token",
                title="Authentication failed",
                cause=reason,
            )

    def _on_packet(self, frame: dict[str, Any], now: float, *, slow: bool) -> None:
        exchange = self._channels.get(frame["channelId"])
        if exchange is None:
            return
        message = frame["message"]
        if slow or exchange.held:
            message = _mend(exchange, message)
        endpoint = exchange.endpoint
        assert isinstance(endpoint, Channel)
        try:
            item = endpoint.decode(message)
        except LegacyPredictionError as error:
            self._finish(exchange, to_exception(error.error, exchange.doing, LMStudioPredictionError))
            return
        exchange.since = now
        exchange.touched = True
        if message["type"] in LAST_PACKETS:
            exchange.cancelled = True
        if item is None:
            logger.debug("skipped a packet of unknown type %r on %s", message.get("type"), endpoint.name)
            return
        if endpoint.clock is None:
            exchange.clock = _clock_after(item, exchange.clock)
        exchange.sink.put(item)

    def _on_frame(self, frame: dict[str, Any], now: float) -> None:
        match frame.get("type"):
            case "rpcResult":
                exchange = self._calls.pop(frame["callId"], None)
                if exchange is not None:
                    self._answered[exchange.endpoint.name] = now
                    exchange.sink.put(frame.get("result"))
                    exchange.finish(None)
            case "rpcError":
                exchange = self._calls.pop(frame["callId"], None)
                if exchange is not None:
                    self._answered[exchange.endpoint.name] = now
                    exchange.finish(to_exception(error_object(frame.get("error")), exchange.doing))
            case "channelClose":
                self._end_channel(frame["channelId"], None)
            case "channelError":
                self._end_channel(frame["channelId"], error_object(frame.get("error")))
            case "communicationWarning":
                self._on_warning(str(frame.get("warning")), str(frame.get("kind")))
            case "channelAck" | "keepAliveAck":
                pass
            case other:
                logger.debug("skipped a frame of unknown type %r", other)

    def _end_channel(self, channel_id: int, error: Mapping[str, Any] | None) -> None:
        exchange = self._channels.pop(channel_id, None)
        if exchange is not None:
            exchange.finish(None if error is None else to_exception(error, exchange.doing))

    def _finish(self, exchange: Exchange, error: BaseException | None) -> None:
        self._channels.pop(exchange.id, None)
        exchange.finish(error)

    def _on_warning(self, text: str, kind: str) -> None:
        """Log it; and fail the call that it is about, because the server will never answer that (protocol §9.1)."""
        found = _ENDPOINT_IN_WARNING.search(text)
        name = found.group(1) if found else None
        hit = [
            exchange
            for exchange in (*self._calls.values(), *self._channels.values())
            if exchange.endpoint.name == name and not exchange.touched
        ]
        if not hit:
            # A cancel may cross the end of its channel on the way; that is nothing to worry about.
            level = logging.DEBUG if kind == "channelUnknown" else logging.WARNING
            logger.log(level, "the server warns: %s", text)
            return
        unknown = "unknown endpoint" in text
        if unknown:
            self._unknown[hit[0].endpoint.name] = text
        # A warning names no call. An endpoint is unknown to all; a bad parameter is that of the newest call.
        for exchange in hit if unknown else hit[-1:]:
            table = self._calls if isinstance(exchange.endpoint, Rpc) else self._channels
            del table[exchange.id]
            failure = LMStudioUnsupportedError if unknown else LMStudioProtocolError
            exchange.finish(_not_taken(exchange, failure, text))


def _not_taken(exchange: Exchange, kind: type[LMStudioError], warning: str) -> LMStudioError:
    return kind(f"{exchange.doing}: the server does not take {exchange.endpoint.name!r}: {warning}")


class _Nobody:
    """The sink of a caller who has left, and has been taken leave of."""

    def put(self, item: Any) -> None:
        pass

    def finish(self, error: BaseException | None) -> None:
        pass

    def is_alive(self) -> bool:
        return True


_NOBODY = _Nobody()


def _clock_after(item: object, clock: str | None) -> str | None:
    """Return the clock that runs after an event of a prediction: the first token has its own."""
    if type(item) is LlmPredictionFragment:
        return "idle_timeout"
    if type(item) is PromptProgress:
        return clock or "first_token_timeout"
    return "idle_timeout" if clock is None or clock == "first_token_timeout" else clock


_STALLS = {
    "timeout": "it took too long in all",
    "connect_timeout": "{peer} has not let this client in (is it running, and is that its port?)",
}
"""What has happened when a clock runs out; with the others, nothing has come for too long."""


def _expired(exchange: Exchange, now: float, peer: str) -> LMStudioError | None:
    if exchange.sink is _NOBODY:
        return None
    total, name = exchange.clocks.get("timeout"), exchange.clock
    if total is not None and now - exchange.started >= total:
        return _timeout(exchange, "timeout", now - exchange.started, peer)
    limit = exchange.clocks.get(name) if name else None
    if limit is not None and now - exchange.since >= limit:
        return _timeout(exchange, name or "", now - exchange.since, peer)
    return None


def _timeout(exchange: Exchange, clock: str, elapsed: float, peer: str) -> LMStudioTimeoutError:
    what = _STALLS.get(clock, "nothing came from the server").format(peer=peer)
    return LMStudioTimeoutError(
        f"{exchange.doing}: {what}: {clock} ran out after {elapsed:.1f} s; raise {clock}, or set it to None",
        clock=clock,
        elapsed=elapsed,
    )


def _mend(exchange: Exchange, message: dict[str, Any]) -> dict[str, Any]:
    """Join the two halves of a surrogate pair that the server cut between two fragments."""
    fragment = message.get("fragment")
    if not is_object(fragment) or not isinstance(fragment.get("content"), str):
        return message
    text, exchange.held = exchange.held + fragment["content"], ""
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, exchange.held = text[:-1], text[-1]
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return {**message, "fragment": {**fragment, "content": joined}}


def client_closed() -> LMStudioConnectionLostError:
    """Return the error of a call whose client was closed."""
    return LMStudioConnectionLostError("the client was closed while this call was open")


def closed_early(doing: str) -> LMStudioChannelClosedError:
    """Return the error of a channel that ended without the packet that should end it."""
    return LMStudioChannelClosedError(f"{doing}: the server closed the channel before it had answered")
