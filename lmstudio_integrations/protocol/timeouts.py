"""Which timeout of a call runs, what restarts it, and the error of one that expired; the timeouts: `types/timeouts.py`.

Used by `session.py`, which owns the calls and checks them once per tick. Plain functions; the time is passed in. Why
calls need timeouts at all: docs/protocol.md#rule-unanswered-calls.
"""

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress
from lmstudio_integrations.types.timeouts import EXPIRIES

_SILENT = "{peer} does not respond, not even to a ping"


def timeout_after(event: object, timeout_name: str | None) -> str | None:
    """Return the timeout that runs after an event of a prediction. The first token has one of its own."""
    if type(event) is LlmPredictionFragment:
        return "idle_timeout"
    if type(event) is PromptProgress:
        # The request is out of the queue, but its first token is still to come (docs/protocol.md#predict-packets).
        return "first_token_timeout" if timeout_name == "queue_timeout" else timeout_name
    # A tool call may begin without a fragment before it (docs/protocol.md#predict-packets).
    return "idle_timeout" if timeout_name in {"queue_timeout", "first_token_timeout"} else timeout_name


def expired_timeout(
    exchange: Exchange, now: float, peer: str, unanswered_since: float | None
) -> LMStudioTimeoutError | None:
    """Return the error of a call whose timeout expired, or `None`.

    Args:
        exchange: The call.
        now: The time.
        peer: The server, for the message.
        unanswered_since: Since when the server owes the reply to a ping. A call without a running timeout of its own
            then ends with its `idle_timeout`: nothing else would end it, because a frozen server does not.
    """
    # Check the total timeout first: it counts even while another one is switched off.
    total, name = exchange.timeouts.get("timeout"), exchange.timeout_name
    if total is not None and now - exchange.started >= total:
        return _error(exchange, "timeout", total, now - exchange.started, EXPIRIES["timeout"].cause)
    limit = exchange.timeouts.get(name) if name else None
    if limit is not None and name is not None:
        if now - exchange.since < limit:
            return None
        cause = EXPIRIES[name].cause.format(peer=peer) + _queue_of(exchange)
        return _error(exchange, name, limit, now - exchange.since, cause)
    # Open-ended channels end only if the server owes the reply to a ping.
    idle = exchange.timeouts.get("idle_timeout")
    if unanswered_since is None or idle is None:
        return None
    elapsed = now - max(unanswered_since, exchange.since)
    return _error(exchange, "idle_timeout", idle, elapsed, _SILENT.format(peer=peer)) if elapsed >= idle else None


def _queue_of(exchange: Exchange) -> str:
    queue = exchange.queue
    if exchange.timeout_name != "queue_timeout" or queue is None or queue.length is None:
        return ""
    return f" ({queue.length} calls are queued or running on this instance)"


def _error(exchange: Exchange, name: str, limit: float, elapsed: float, cause: str) -> LMStudioTimeoutError:
    return LMStudioTimeoutError(
        f"{exchange.label}: {cause}: {name} expired after {limit:.12g} s; {EXPIRIES[name].remedy}",
        timeout_name=name,
        elapsed=elapsed,
        unanswered=not (exchange.packets or (exchange.queue and exchange.queue.last_packet > exchange.started)),
    )
