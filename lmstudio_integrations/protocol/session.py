"""The client's side of one connection, without I/O (protocol §2, §3).

A session turns calls into frames and frames into what the callers wait for. One thread owns it; it holds no
lock, reads no clock and touches no socket: time is passed in, frames are taken from `data_to_send`.
`timeouts.py` and `instance_queue.py` hold its rules about time.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations._secrets import HIDDEN
from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioChannelClosedError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol import envelope, instance_queue
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS, Channel, Rpc
from lmstudio_integrations.protocol.errors import error_object, to_exception
from lmstudio_integrations.protocol.exchange import Exchange, Instance
from lmstudio_integrations.protocol.instance_queue import Instances, no_instances
from lmstudio_integrations.protocol.prediction import LegacyPredictionError
from lmstudio_integrations.protocol.timeouts import expired_timeout, timeout_after

logger: logging.Logger = logging.getLogger(__name__)

_ENDPOINT_IN_WARNING = re.compile(r"endpoint(?:Name)? = (\w+)")


class ClientSession:
    """State of one connection.

    Args:
        identifier: The client's identifier.
        passkey: The client's passkey.
        peer: The server, for messages of errors.
        instances: What is known of the model instances there; sessions to one server share it.
    """

    def __init__(
        self, identifier: str, passkey: str, peer: str = "LM Studio", instances: Instances | None = None
    ) -> None:
        self._peer = peer
        self._instances: Instances = no_instances() if instances is None else instances
        self._outbox: list[str] = [envelope.auth(identifier, passkey)]
        self._credentials = (identifier, passkey)
        self._backlog: list[Exchange] = []
        self._calls: dict[int, Exchange] = {}
        self._channels: dict[int, Exchange] = {}
        self._unknown: dict[str, str] = {}
        self._answered: dict[str, float] = {}
        self._next_id = 0
        self.ready: bool = False
        """Whether the server has accepted this client."""
        self.paused: bool = False
        """Whether new requests are held back until the other side has proven to be alive."""
        self.unanswered_since: float | None = None
        """Since when the server owes the answer to a ping."""

    @property
    def idle(self) -> bool:
        """Whether nothing is open, abandoned calls included."""
        return not (self._calls or self._channels or self._backlog)

    @property
    def has_waiting(self) -> bool:
        """Whether anybody waits for anything; what was abandoned may take the server long to end."""
        return any(exchange.waiting for exchange in self._exchanges())

    @property
    def in_flight(self) -> bool:
        """Whether anybody waits for the answer to a request that was sent."""
        return any(exchange.waiting for exchange in self._sent())

    @property
    def keepalive(self) -> float | None:
        """The shortest interval, in seconds, at which those who wait want a silent server to be pinged."""
        intervals = [exchange.timeouts.get("keepalive") for exchange in self._exchanges() if exchange.waiting]
        return min((interval for interval in intervals if interval is not None), default=None)

    def _exchanges(self) -> list[Exchange]:
        """Return all that is open, sent or held back."""
        return [*self._sent(), *self._backlog]

    def _sent(self) -> list[Exchange]:
        """Return all requests that were sent and have not ended."""
        return [*self._calls.values(), *self._channels.values()]

    def data_to_send(self) -> list[str]:
        """Return the frames that are due, once."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def start(self, exchange: Exchange) -> None:
        """Send a request, or hold it back until the server has accepted this client and is known to be alive."""
        if self.ready and not self.paused:
            self._send(exchange, exchange.since or exchange.started)
        else:
            exchange.timeout_name, exchange.since = "connect_timeout", exchange.since or exchange.started
            self._backlog.append(exchange)

    def resume(self, now: float) -> None:
        """Send what was held back: the server has accepted this client, and is alive."""
        self.paused, self.unanswered_since = False, None
        for exchange in self.take_backlog():
            self._send(exchange, now)

    def adopt(self, exchanges: list[Exchange], now: float) -> None:
        """Send requests that another session has held back."""
        self._backlog += exchanges
        self.resume(now)

    def take_backlog(self) -> list[Exchange]:
        """Return the requests that were not sent yet, and drop them here."""
        backlog, self._backlog = self._backlog, []
        return backlog

    def _send(self, exchange: Exchange, now: float) -> None:
        warned = self._unknown.get(exchange.endpoint.name)
        if warned is not None:
            # Asking again would use up the five warnings of this connection, and after them no answer comes at all.
            exchange.finish(_not_taken(exchange, LMStudioUnsupportedError, warned))
            return
        exchange.id = self._next_id = self._next_id + 1
        exchange.since = now
        endpoint = exchange.endpoint
        exchange.timeout_name = endpoint.timeout_name
        if exchange.specifier is not None:
            exchange.instance = self._instances.setdefault(exchange.specifier, Instance())
        if isinstance(endpoint, Rpc):
            self._calls[exchange.id] = exchange
            self._outbox.append(envelope.rpc_call(endpoint.name, exchange.id, exchange.parameter))
        else:
            self._channels[exchange.id] = exchange
            self._outbox.append(envelope.channel_create(endpoint.name, exchange.id, exchange.parameter))
        exchange.parameter = None  # may be megabytes
        if exchange.timeout_name is not None and exchange.timeouts.get(exchange.timeout_name) == 0:
            # Not with the next tick: the response would come before it.
            self.close(exchange, expired_timeout(exchange, now, self._peer, None))

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

    def close(self, exchange: Exchange, error: BaseException | None = None) -> None:
        """Ask the server to stop, and discard what still arrives; the error, or the end, wakes the caller."""
        exchange.finish(error)
        self.cancel(exchange)
        if self._calls.get(exchange.id) is exchange:
            del self._calls[exchange.id]

    def close_owner(self, owner: int) -> None:
        """Close everything that a client has open, and fail its waiting calls."""
        for exchange in self._exchanges():
            if exchange.owner == owner and exchange.waiting:
                self.close(exchange, client_closed())

    def lost(self, error: Callable[[], BaseException]) -> None:
        """Fail everyone who waits, once, each with an exception of their own."""
        waiting = self._exchanges()
        self._calls, self._channels, self._backlog = {}, {}, []
        for exchange in waiting:
            exchange.finish(error())

    def tick(self, now: float) -> bool:
        """Fail the calls whose timeout expired, and stop the work on the server for them and for dead callers.

        Returns:
            Whether a timeout expired on a request that was sent: the server may be gone.
        """
        silent = False
        for exchange in self._exchanges():
            self._restart_timeout(exchange, now)
            expired = expired_timeout(exchange, now, self._peer, self.unanswered_since) if exchange.waiting else None
            if expired is not None or not exchange.sink.is_alive():
                silent = silent or (expired is not None and exchange.id > 0)
                self.close(exchange, expired)
        self._ask_for_queues(now)
        return silent

    def _restart_timeout(self, exchange: Exchange, now: float) -> None:
        """Count what shows that the server is at work on others for those who wait their turn."""
        if isinstance(exchange.endpoint, Rpc) and exchange.id:
            # A server answers calls of one kind one after the other.
            exchange.since = max(exchange.since, self._answered.get(exchange.endpoint.name, exchange.since))
        if exchange.timeout_name == "queue_timeout" and exchange.instance is not None:
            exchange.since = max(exchange.since, instance_queue.moved_at(exchange.instance, now))

    def _ask_for_queues(self, now: float) -> None:
        """Ask how long the queues are in which somebody waits, where the server knows that."""
        endpoint = instance_queue.PROCESSING_STATE
        if not self.ready or self.paused or endpoint.name in self._unknown:
            return
        limits = {"idle_timeout": instance_queue.ANSWER_TIMEOUT}
        for query in instance_queue.queries(self._exchanges(), now):
            self._send(Exchange(endpoint, query.parameter, query.sink, limits, now, "Queue length"), now)

    def receive(self, data: str | bytes, now: float) -> None:
        """Take in one frame.

        Raises:
            LMStudioAuthenticationError: If the server refuses this client; the connection is then of no use.
        """
        frame, slow = envelope.parse(data)
        if frame is None:
            self._on_no_object(data)
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
            self.resume(now)
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
        endpoint, instance = exchange.endpoint, exchange.instance
        assert isinstance(endpoint, Channel)
        exchange.packets += 1
        try:
            message = frame["message"]
            if slow or exchange.held:
                message = _mend(exchange, message)
            item = endpoint.decode(message)
        except LegacyPredictionError as error:
            self._finish(exchange, to_exception(error.error, exchange.operation, LMStudioPredictionError))
            return
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
            # Going on without it would pass a response with a hole for a whole one.
            self.close(exchange, _undecodable(exchange, "it is not what its type promises"))
            return
        exchange.since = now
        if instance is not None:
            instance.last_packet = now
        if message["type"] in LAST_PACKETS:
            exchange.cancelled = True
        if item is None:
            logger.debug("skipped a packet of unknown type %r on %s", message.get("type"), endpoint.name)
            return
        if endpoint.timeout_name == "queue_timeout":
            exchange.timeout_name = timeout_after(item, exchange.timeout_name)
        exchange.sink.put(item)

    def _on_no_object(self, data: str | bytes) -> None:
        """Fail what a damaged frame belongs to; without an id, that may be anything that was sent."""
        damage = envelope.damage(data)
        if damage is None or not self.ready:
            logger.debug("dropped a frame that is no JSON object")
            return
        table = self._calls if damage.kind == "callId" else self._channels
        hit = self._sent() if damage.id is None else [table[damage.id]] if damage.id in table else []
        for exchange in hit:
            exchange.packets += 1
            self.close(exchange, _undecodable(exchange, damage.position))

    def _on_frame(self, frame: dict[str, Any], now: float) -> None:
        match frame.get("type"):
            case "rpcResult":
                exchange = self._calls.pop(frame["callId"], None)
                if exchange is not None:
                    self._on_answer(exchange, now)
                    exchange.sink.put(frame.get("result"))
                    exchange.finish(None)
            case "rpcError":
                exchange = self._calls.pop(frame["callId"], None)
                if exchange is not None:
                    self._on_answer(exchange, now)
                    exchange.finish(to_exception(error_object(frame.get("error")), exchange.operation))
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

    def _on_answer(self, exchange: Exchange, now: float) -> None:
        """Record what an answer shows to those who still wait."""
        self._answered[exchange.endpoint.name] = now
        if exchange.instance is not None:
            exchange.instance.last_packet = now

    def _end_channel(self, channel_id: int, error: Mapping[str, Any] | None) -> None:
        exchange = self._channels.pop(channel_id, None)
        if exchange is not None:
            exchange.finish(None if error is None else to_exception(error, exchange.operation))

    def _finish(self, exchange: Exchange, error: BaseException | None) -> None:
        self._channels.pop(exchange.id, None)
        exchange.finish(error)

    def _on_warning(self, text: str, kind: str) -> None:
        """Log it; and fail the call that it is about, because the server will never answer that (protocol §9.1)."""
        found = _ENDPOINT_IN_WARNING.search(text)
        name = found.group(1) if found else None
        hit = [exchange for exchange in self._sent() if exchange.endpoint.name == name and not exchange.packets]
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
    return kind(f"{exchange.operation}: the server does not take {exchange.endpoint.name!r}: {warning}")


def _undecodable(exchange: Exchange, position: str) -> LMStudioProtocolError:
    """Return the error of a lost packet; it names the place and not the content, which may be private."""
    where = f"packet {exchange.packets}" if isinstance(exchange.endpoint, Channel) else "the answer"
    return LMStudioProtocolError(
        f"{exchange.operation}: {where} of {exchange.endpoint.name!r} cannot be read ({position}); make the call again"
    )


def _mend(exchange: Exchange, message: dict[str, Any]) -> dict[str, Any]:
    """Join the two halves of a surrogate pair that the server cut between two fragments."""
    fragment = message.get("fragment")
    if not is_object(fragment) or not isinstance(fragment.get("content"), str):
        return message
    text, exchange.held = exchange.held + fragment["content"], ""
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, exchange.held = text[:-1], text[-1]
    joined = envelope.without_surrogates(text)
    return {**message, "fragment": {**fragment, "content": joined}}


def client_closed() -> LMStudioConnectionLostError:
    """Return the error of a call whose client was closed."""
    return LMStudioConnectionLostError("the client was closed while this call was open", retryable=False)


def closed_early(operation: str) -> LMStudioChannelClosedError:
    """Return the error of a channel that ended without the packet that should end it."""
    return LMStudioChannelClosedError(f"{operation}: the server closed the channel before it had answered")
