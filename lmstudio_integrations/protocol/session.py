"""The client's side of one connection, without I/O (docs/protocol.md#client-rules).

A session turns calls into frames, and frames into what the callers wait for. One thread owns it; it holds no lock,
reads no clock and touches no socket: the time is passed in, frames are fetched with `data_to_send`.
Used by the client's connections. `exchange.py` holds its rules about time.
"""

import logging
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from lmstudio_integrations._support.secrets import HIDDEN, redact_members, redact_received
from lmstudio_integrations._support.text import one_line, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioChannelClosedError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioPredictionError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import LAST_PACKETS, Channel, Rpc
from lmstudio_integrations.protocol.errors import copy_of, error_object, to_exception
from lmstudio_integrations.protocol.exchange import (
    PROCESSING_STATE,
    Exchange,
    InstanceQueue,
    InstanceQueues,
    ToolSession,
    expired_timeout,
    queue_queries,
    timeout_after,
)
from lmstudio_integrations.protocol.prediction import LegacyPredictionError

logger: logging.Logger = logging.getLogger(__name__)

# A warning carries no id. It names only an endpoint, in its text (docs/protocol.md#invalid-input).
_ENDPOINT_IN_WARNING = r"endpoint(?:Name)? = (\w+)"

_ARGUMENTS = "toolCallGenerationArgumentFragmentGenerated"
"""The packet with a fragment of the arguments of a tool call."""

_TOO_LATE = "Authentication timed out"
"""What a server says that has waited for credentials too long (docs/protocol.md#authentication-rules)."""


class ClientSession:
    """State of one connection.

    Args:
        peer: The server, for error messages.
        queues: The queues of the model instances there; sessions to one server share them.
    """

    def __init__(
        self,
        peer: str = "LM Studio",
        queues: InstanceQueues | None = None,
    ) -> None:
        self._peer = peer
        self._queues: InstanceQueues = InstanceQueues() if queues is None else queues
        self._outbox: list[str] = []
        self._credentials: tuple[str, ...] = ()
        self._backlog: list[Exchange] = []
        # One counter and one table for calls and channels, from 1: the ids suit servers with one table and with two
        # (docs/protocol.md#ids).
        self._next_id = 0
        self._sent: dict[int, Exchange] = {}
        self._unknown_endpoints: dict[str, str] = {}
        """The server's warning by endpoint. It stays true for the whole connection."""
        self._warnings_received = 0
        self._last_replies: dict[str, float] = {}
        """When an RPC of each endpoint was last answered."""
        self.ready: bool = False
        """Whether the server has accepted this client, and the connection is not lost."""
        self.paused: bool = False
        """Whether new requests are held back until the other side has proven to be alive."""
        self.unanswered_since: float | None = None
        """Since when the server owes the reply to a ping."""

    @property
    def idle(self) -> bool:
        """Whether nothing is open. A closed call counts as open while the server still runs it."""
        return not (self._sent or self._backlog)

    @property
    def has_callers(self) -> bool:
        """Whether a caller waits. The server may take long to end what was closed, and no caller waits for that."""
        return any(exchange.has_caller for exchange in self._exchanges())

    @property
    def in_flight(self) -> bool:
        """Whether a caller waits for the reply to a request that was sent."""
        return any(exchange.has_caller for exchange in self._sent.values())

    @property
    def keepalive(self) -> float | None:
        """The shortest interval, in seconds, at which the waiting callers have a silent server pinged."""
        intervals = [exchange.timeouts.get("keepalive") for exchange in self._exchanges() if exchange.has_caller]
        return min((interval for interval in intervals if interval is not None), default=None)

    @property
    def connect_timeout(self) -> float:
        """The longest time, in seconds, that a waiting caller has for being accepted; without callers 0."""
        limits = [exchange.timeouts.get("connect_timeout") for exchange in self._exchanges() if exchange.has_caller]
        return max((math.inf if limit is None else limit for limit in limits), default=0)

    def _exchanges(self) -> list[Exchange]:
        """Return all open requests, sent or held back, and the calls on channels; a channel comes before its calls."""
        sent = list(self._sent.values())
        calls = [call for each in sent if isinstance(each, ToolSession) for call in each.calls]
        return [*sent, *calls, *self._backlog]

    def data_to_send(self) -> list[str]:
        """Return the frames that are due, once."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def authenticate(self, identifier: str, passkey: str) -> None:
        """Send the credentials. Nothing else is sent before the server accepts them.

        See docs/protocol.md#rule-authenticate-first.
        """
        self._credentials = identifier, passkey
        self._outbox.append(envelope.auth(identifier, passkey))

    # Requests -------------------------------------------------------------------------------------------------------

    def start(self, exchange: Exchange) -> None:
        """Send a request, or hold it back until the server has accepted this client and is known to be alive."""
        if self.ready and not self.paused:
            self._send(exchange, exchange.since or exchange.started)
        else:
            # Requests must not be pipelined behind the credentials (docs/protocol.md#authentication-result).
            exchange.timeout_name, exchange.since = "connect_timeout", exchange.since or exchange.started
            self._backlog.append(exchange)

    def resume(self, now: float) -> None:
        """Send what was held back. The server must have accepted this client, and have proven to be alive."""
        assert self.ready, "nothing may be sent before authentication"
        self.paused, self.unanswered_since = False, None
        for exchange in self.pop_backlog():
            self._send(exchange, now)

    def adopt(self, exchanges: list[Exchange], now: float) -> None:
        """Send requests that another session has held back; what `resume` requires holds here, too."""
        self._backlog += exchanges
        self.resume(now)

    def pop_backlog(self) -> list[Exchange]:
        """Return the requests that were not sent yet, and drop them here."""
        backlog, self._backlog = self._backlog, []
        return backlog

    def _send(self, exchange: Exchange, now: float) -> None:
        """Write the frame that begins a call or a channel."""
        if exchange.channel is not None:
            self._send_on(exchange.channel, exchange, now)
            return
        endpoint = exchange.endpoint
        warning = self._unknown_endpoints.get(endpoint.name)
        if warning is not None:
            # Sending it again would use up the server's five warnings; after them, it would answer nothing at all
            # (docs/protocol.md#warnings).
            exchange.finish(_not_accepted(exchange, LMStudioUnsupportedError, warning))
            return
        exchange.id = self._next_id = self._next_id + 1
        exchange.since, exchange.timeout_name = now, endpoint.timeout_name
        if exchange.specifier is not None:
            exchange.queue = self._queues.setdefault(exchange.queue_name or exchange.specifier, InstanceQueue())
        self._sent[exchange.id] = exchange
        frame_of = envelope.rpc_call if isinstance(endpoint, Rpc) else envelope.channel_create
        self._outbox.append(frame_of(endpoint.name, exchange.id, exchange.parameter))
        exchange.parameter = None  # it may be megabytes
        if exchange.timeout_name is not None and exchange.timeouts.get(exchange.timeout_name) == 0:
            # Do not wait for the next tick, because the response would come before it.
            self.close(exchange, expired_timeout(exchange, now, self._peer, None))

    def _send_on(self, channel: Exchange, call: Exchange, now: float) -> None:
        """Start a call on a channel, if that is still open on this socket."""
        is_open = self._sent.get(channel.id) is channel and channel.has_caller
        if not (is_open and isinstance(channel, ToolSession)):
            call.finish(_end_of_channel(channel))
            return
        call.since, call.timeout_name = now, call.endpoint.timeout_name
        self._send_packets(channel, channel.start(call))

    def _send_packets(self, channel: Exchange, *packets: str | None) -> None:
        self._outbox += [envelope.channel_send(channel.id, packet) for packet in packets if packet is not None]

    def cancel(self, exchange: Exchange) -> None:
        """Ask the server to stop. What still arrives is delivered. Has no effect after the end."""
        channel = exchange.channel
        if exchange in self._backlog:
            self._backlog.remove(exchange)
            exchange.finish(None)
        elif channel is not None:
            # Nothing follows on an abort, so the call has ended (docs/protocol.md#tool-sessions).
            if isinstance(channel, ToolSession) and self._sent.get(channel.id) is channel:
                self._send_packets(channel, channel.abort(exchange))
            exchange.finish(None)
        elif self._sent.get(exchange.id) is exchange and isinstance(exchange.endpoint, Channel):
            stop = exchange.endpoint.stop
            if stop and not exchange.cancelled:
                # The channel stays in the table: only the server ends it (docs/protocol.md#rule-cancel-and-read-on).
                message = f'{{"type":"{stop}"}}'
                self._outbox.append(envelope.channel_send(exchange.id, message))
            # Sent once, and only while the channel is open: later it would cause a warning (docs/protocol.md#channels).
            exchange.cancelled = True

    def close(self, exchange: Exchange, error: BaseException | None = None) -> None:
        """Ask the server to stop, and discard what still arrives. Wakes the caller, with the error if there is one."""
        # Pass the error first: `cancel` would finish a request that was held back without one.
        exchange.finish(error)
        self._end_calls(exchange)
        self.cancel(exchange)
        if isinstance(exchange.endpoint, Rpc) and self._sent.get(exchange.id) is exchange:
            # An RPC cannot be cancelled; its late result finds no entry and is dropped (docs/protocol.md#rpc).
            del self._sent[exchange.id]

    def _end_calls(self, channel: Exchange) -> None:
        """Wake the callers of all calls on a channel that has ended, also of those that were held back."""
        if not isinstance(channel, ToolSession):
            return
        calls = channel.pop_calls()
        calls += [call for call in self._backlog if call.channel is channel]
        self._backlog = [call for call in self._backlog if call.channel is not channel]
        for call in calls:
            call.finish(_end_of_channel(channel))

    def close_client(self, client_id: object) -> None:
        """Close everything that a client has open, and fail its waiting callers."""
        for exchange in self._exchanges():
            if exchange.client_id == client_id and exchange.has_caller:
                self.close(exchange, client_closed())

    def connection_lost(self, make_error: Callable[[], BaseException]) -> None:
        """Fail all waiting callers, once, each with its own exception."""
        exchanges = self._exchanges()
        self.ready, self._sent, self._backlog = False, {}, []
        for exchange in exchanges:
            exchange.finish(make_error())

    def fail_over(self) -> None:
        """Fail the calls that another host can take, because this one is silent. Responses that have begun stay."""
        for exchange in self._exchanges():
            if exchange.can_fail_over and exchange.has_caller and not exchange.has_begun:
                text = f"{exchange.label}: {self._peer} has stopped responding; wake or restart it"
                self.close(exchange, LMStudioConnectionLostError(text))

    # Time -----------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> bool:
        """Fail calls and channels whose timeout expired, and stop the server's work for them and for dead callers.

        Returns:
            Whether a timeout expired on a request that was sent: the server may be gone.
        """
        silent = False
        # Calls before their channels: an open-ended channel stays as long as a call may wait for it.
        for exchange in sorted(self._exchanges(), key=lambda each: each.channel is None):
            self._restart_timeout(exchange, now)
            if exchange.timeout_name is None and isinstance(exchange, ToolSession) and exchange.calls:
                continue
            expired = expired_timeout(exchange, now, self._peer, self.unanswered_since) if exchange.has_caller else None
            if expired is not None or not exchange.receiver.is_alive():
                silent = silent or (expired is not None and exchange.id > 0)
                self.close(exchange, expired)
        # Servers before August 2025 do not know the endpoint (docs/protocol.md#client-versions).
        if self.ready and not self.paused and PROCESSING_STATE.name not in self._unknown_endpoints:
            for query in queue_queries(self._exchanges(), now):
                self._send(query, now)
        return silent

    def _restart_timeout(self, exchange: Exchange, now: float) -> None:
        """Restart the timeout of a call that waits its turn if the server has worked on another one since."""
        if isinstance(exchange.endpoint, Rpc) and exchange.id:
            # A server works off calls of one kind in turn.
            exchange.since = max(exchange.since, self._last_replies.get(exchange.endpoint.name, exchange.since))
        queue = exchange.queue
        if exchange.timeout_name == "queue_timeout" and queue is not None:
            # Note each fall once: the length is polled, so the tick that sees a change gives it its time.
            if queue.has_shortened:
                queue.has_shortened, queue.last_packet = False, now
            exchange.since = max(exchange.since, queue.last_packet)

    # Replies --------------------------------------------------------------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> None:
        """Receive one frame, and deliver what it has to the mailbox of its call.

        Raises:
            LMStudioAuthenticationError: If the server rejects this client; the connection is then of no use.
        """
        frame, used_fallback = envelope.parse(data)
        if frame is None:
            self._on_damaged_frame(data)
            return
        if not self.ready:
            # The result of authentication has no type (docs/protocol.md#authentication-result).
            self._on_authentication(frame, now)
            return
        match frame.get("type"):
            case "channelSend":  # first, because it is almost every frame
                self._on_packet(frame, now, used_fallback=used_fallback)
            case "rpcResult" | "rpcError":
                self._on_reply(frame, now)
            case "channelClose" | "channelError":
                self._on_channel_end(frame)
            case "communicationWarning":
                self._on_warning(_text(frame.get("warning")), _text(frame.get("kind")))
            case "channelAck" | "keepAliveAck":
                pass  # unused by LM Studio, and harmless (docs/protocol.md#acks)
            case other:
                logger.debug("skipped a frame of unknown type %s", _text(other))

    def _on_authentication(self, frame: dict[str, Any], now: float) -> None:
        if frame.get("success") is True:
            self.ready = True
            self.resume(now)
        elif frame.get("success") is False:
            reason = _text(frame.get("error", "no reason given"))
            if reason == _TOO_LATE:
                raise LMStudioConnectionLostError(
                    "the connection to LM Studio was lost (the credentials did not arrive in time); the next call "
                    "reconnects"
                )
            reason = self._without_credentials(reason)
            raise LMStudioAuthenticationError(
                f"LM Studio rejected this client: {reason}",
                title="Authentication failed",
                cause=reason,
            )
        elif "type" not in frame:  # unrelated frames have one
            raise LMStudioProtocolError(
                "the server's reply to the credentials says neither yes nor no: "
                f"{self._without_credentials(_text(frame))}; update LM Studio, or check what else listens there"
            )

    def _without_credentials(self, text: str) -> str:
        """Return a text of the server without them: servers name the identifier, half of a token."""
        for credential in filter(None, self._credentials):
            text = text.replace(credential, HIDDEN)
        return text

    def _find(self, endpoint_type: type[Rpc | Channel], exchange_id: Any) -> Exchange | None:
        """Return the open call or channel of a frame. Frames without one are legal, most of them late."""
        try:
            exchange = self._sent.get(exchange_id)
        except TypeError:  # an id that is an object or a list (docs/protocol.md#unreadable-frames)
            exchange = None
        return exchange if exchange is not None and isinstance(exchange.endpoint, endpoint_type) else None

    def _on_packet(self, frame: dict[str, Any], now: float, *, used_fallback: bool) -> None:
        """Deliver what a packet of a channel becomes, such as the events of a prediction."""
        exchange = self._find(Channel, frame.get("channelId"))
        if exchange is None:
            return  # late packets are legal (docs/protocol.md#channels)
        endpoint, queue = exchange.endpoint, exchange.queue
        assert isinstance(endpoint, Channel)
        exchange.packets += 1
        try:
            message = frame["message"]
            if used_fallback or exchange.high_surrogates:
                # Only the fallback parser accepts lone surrogates: only its frames, and those after them, need joining.
                message = _join_surrogates(exchange, message)
            item = endpoint.decode(message)
        except LegacyPredictionError as error:
            del self._sent[exchange.id]
            exchange.finish(to_exception(error.error, exchange.label, LMStudioPredictionError))
            return
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
            # Skipping it would pass a response with a gap as complete.
            self.close(exchange, _unreadable(exchange, "its members do not match its type"))
            return
        if isinstance(exchange, ToolSession):
            self._on_tool_packet(exchange, item, now)
            return
        exchange.since = now
        if queue is not None:
            queue.last_packet = now
        is_last = message["type"] in LAST_PACKETS
        exchange.cancelled |= is_last  # the server has nothing left to stop
        if item is None:
            # Unknown types are skipped, but count as a sign of life (docs/protocol.md#one-client-for-all).
            logger.debug("skipped a packet of unknown type %r on %s", message.get("type"), endpoint.name)
            return
        if exchange.timeout_name != "idle_timeout" and endpoint.timeout_name == "queue_timeout":
            exchange.timeout_name = timeout_after(item, exchange.timeout_name)
        exchange.receiver.put(item)
        if is_last:  # as in Python's SDK; otherwise what follows would count or not, as it happens to arrive
            exchange.finish(None)

    def _on_tool_packet(self, channel: ToolSession, packet: Mapping[str, Any], now: float) -> None:
        try:
            replies = channel.receive(packet)
        except (LookupError, TypeError):
            self.close(channel, _unreadable(channel, "its members do not match its type"))
            return
        if channel.definitions is not None:  # the session has begun, and stays open until one side ends it
            channel.since, channel.timeout_name = now, None
        self._send_packets(channel, *replies)

    def _on_damaged_frame(self, data: str | bytes) -> None:
        """Fail the call that a damaged frame belongs to. Without a readable id, any open call may have lost it."""
        damage = envelope.diagnose(data)
        if damage is None or not self.ready:
            logger.debug("dropped a frame that is not a JSON object")
            return
        named = self._find(Rpc if damage.kind == "callId" else Channel, damage.id)
        for exchange in list(self._sent.values()) if damage.id is None else filter(None, [named]):
            exchange.packets += 1
            self.close(exchange, _unreadable(exchange, damage.position))

    def _on_reply(self, frame: dict[str, Any], now: float) -> None:
        exchange = self._find(Rpc, frame.get("callId"))
        if exchange is None:
            return
        self._last_replies[exchange.endpoint.name] = now
        if exchange.queue is not None:
            exchange.queue.last_packet = now
        if frame["type"] == "rpcResult":
            # An absent result is void, or means "not found" (docs/protocol.md#serialization).
            exchange.receiver.put(frame.get("result"))
        # After `put`: if the receiver fails, `connection_lost` still wakes the caller.
        self._sent.pop(exchange.id, None)
        exchange.finish(self._error_in(frame, "rpcError", exchange))

    def _on_channel_end(self, frame: dict[str, Any]) -> None:
        exchange = self._find(Channel, frame.get("channelId"))
        if exchange is not None:
            del self._sent[exchange.id]
            # The caller checks that it received the terminal packet (docs/protocol.md#rule-finish-channels).
            exchange.finish(self._error_in(frame, "channelError", exchange))
            self._end_calls(exchange)

    def _error_in(self, frame: Mapping[str, Any], error_type: str, exchange: Exchange) -> LMStudioServerError | None:
        """Return the error in a frame that ends a call or channel, if the frame is of the type that has one."""
        if frame["type"] != error_type:
            return None
        error, endpoint = error_object(frame.get("error")), exchange.endpoint
        if not isinstance(endpoint, Channel):
            return to_exception(error, exchange.label)
        return to_exception(error, exchange.label, endpoint.default_error, kind=endpoint.error)

    def _on_warning(self, text: str, kind: str) -> None:
        """Log it, or fail the call that it is about: the server never replies to that.

        See docs/protocol.md#rule-unanswered-calls.
        """
        match = re.search(_ENDPOINT_IN_WARNING, text)
        name = match and match.group(1)
        # A call that has received packets was accepted, so the warning is not about it.
        affected = [
            exchange for exchange in self._sent.values() if exchange.endpoint.name == name and not exchange.packets
        ]
        if not affected:
            self._log_warning(text, kind)
            return
        unknown = "unknown endpoint" in text
        if unknown:
            self._unknown_endpoints[affected[0].endpoint.name] = text
        # An unknown endpoint fails all its calls. A bad parameter names no call: assume the newest one.
        for exchange in affected if unknown else affected[-1:]:
            # It may be closed already, by the caller of the one before it.
            self._sent.pop(exchange.id, None)
            kind_of_error = LMStudioUnsupportedError if unknown else LMStudioProtocolError
            exchange.finish(_not_accepted(exchange, kind_of_error, text))
            self._end_calls(exchange)

    def _log_warning(self, text: str, kind: str) -> None:
        """Log a warning, up to the number that a side may send, so that a server cannot fill the log."""
        self._warnings_received += 1
        if self._warnings_received <= envelope.MAX_WARNINGS:
            # A cancel may cross the end of its channel on the wire (docs/protocol.md#channels).
            level = logging.DEBUG if kind == "channelUnknown" else logging.WARNING
            logger.log(level, "warning from the server: %s", one_line(redact_received(text)))


def _text(value: object) -> str:
    """Return what should be a string, shortened; anything else, however deeply it is nested, as a representation."""
    return shortened(value) if isinstance(value, str) else reprlib.repr(value)


def _not_accepted(exchange: Exchange, kind: type[LMStudioError], warning: str) -> LMStudioError:
    text = redact_members(warning)
    return kind(f"{exchange.label}: the server does not accept {exchange.endpoint.name!r}: {text}; update LM Studio")


def _unreadable(exchange: Exchange, position: str) -> LMStudioProtocolError:
    """Return the error of a lost packet. It names the position and not the content, which may be private."""
    where = f"packet {exchange.packets}" if isinstance(exchange.endpoint, Channel) else "the reply"
    return LMStudioProtocolError(
        f"{exchange.label}: {where} of {exchange.endpoint.name!r} cannot be read ({position}); make the call again"
    )


def _join_surrogates(exchange: Exchange, message: dict[str, Any]) -> dict[str, Any]:
    """Join the halves of a surrogate pair that the server cut between two fragments of a text, or of arguments.

    JSON allows a lone half, UTF-8 does not.
    """
    kind, fragment = message.get("type"), message.get("fragment")
    if kind == _ARGUMENTS:
        fragment = message
    elif isinstance(fragment, str):
        fragment = {"content": fragment}
    if not is_object(fragment) or not isinstance(fragment.get("content"), str):
        return message
    text = exchange.high_surrogates.pop(kind, "") + fragment["content"]
    if text and "\ud800" <= text[-1] <= "\udbff":
        text, exchange.high_surrogates[kind] = text[:-1], text[-1]
    joined = {**fragment, "content": envelope.without_surrogates(text)}
    return joined if kind == _ARGUMENTS else {**message, "fragment": joined}


def _end_of_channel(channel: Exchange) -> BaseException:
    """Return the error of a call on a channel that has ended."""
    return closed_early(channel.label) if channel.error is None else copy_of(channel.error)


def client_closed() -> LMStudioConnectionLostError:
    """Return the error of a call whose client was closed."""
    return LMStudioConnectionLostError("the client was closed while this call was open", retryable=False)


def closed_early(label: str) -> LMStudioChannelClosedError:
    """Return the error of a channel that closed without its terminal packet (docs/protocol.md#rule-finish-channels)."""
    return LMStudioChannelClosedError(
        f"{label}: the server closed the channel before the result; its log (`lms log stream`) may say why"
    )
