"""Which timeout of a call runs, what restarts it, and the error of one that expired.

Below `session.py`, which owns the calls and calls this once per tick. Plain functions; the time is passed in.
"""

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.exchange import Exchange
from lmstudio_integrations.types.results import LlmPredictionFragment, PromptProgress

_CAUSES = {
    "timeout": "it took too long in all",
    "connect_timeout": "{peer} does not answer (is it running, and is that its port?)",
    "queue_timeout": "the server has not begun to work on it",
}
"""What an expired timeout means; the others mean that nothing came for too long."""

_SILENT = "{peer} answers nothing, not even a ping"


def timeout_after(event: object, timeout_name: str | None) -> str | None:
    """Return the timeout that runs after an event of a prediction: the first token has one of its own."""
    if type(event) is LlmPredictionFragment:
        return "idle_timeout"
    if type(event) is PromptProgress:
        return "first_token_timeout" if timeout_name == "queue_timeout" else timeout_name
    return "idle_timeout" if timeout_name in {"queue_timeout", "first_token_timeout"} else timeout_name


def expired_timeout(
    exchange: Exchange, now: float, peer: str, unanswered_since: float | None
) -> LMStudioTimeoutError | None:
    """Return the error of a call whose timeout expired, or `None`.

    Args:
        exchange: The call.
        now: The time.
        peer: The server, for the message.
        unanswered_since: Since when the server owes the answer to a ping. A call without a running timeout of its own
            then ends with its `idle_timeout`: a frozen server ends nothing, so nothing else would.
    """
    total, name = exchange.timeouts.get("timeout"), exchange.timeout_name
    if total is not None and now - exchange.started >= total:
        return _error(exchange, "timeout", now - exchange.started, _CAUSES["timeout"].format(peer=peer))
    limit = exchange.timeouts.get(name) if name else None
    if limit is not None and name is not None:
        if now - exchange.since < limit:
            return None
        cause = _CAUSES.get(name, "nothing came from the server")
        return _error(exchange, name, now - exchange.since, cause.format(peer=peer) + _queue_of(exchange))
    idle = exchange.timeouts.get("idle_timeout")
    if unanswered_since is None or idle is None:
        return None
    elapsed = now - max(unanswered_since, exchange.since)
    return _error(exchange, "idle_timeout", elapsed, _SILENT.format(peer=peer)) if elapsed >= idle else None


def _queue_of(exchange: Exchange) -> str:
    instance = exchange.instance
    if exchange.timeout_name != "queue_timeout" or instance is None or instance.queued is None:
        return ""
    return f" ({instance.queued} calls wait or run on this instance)"


def _error(exchange: Exchange, name: str, elapsed: float, cause: str) -> LMStudioTimeoutError:
    return LMStudioTimeoutError(
        f"{exchange.operation}: {cause}: {name} expired after {elapsed:.1f} s; raise {name}, or set it to None",
        timeout_name=name,
        elapsed=elapsed,
    )
