"""The columns of the fault table: what goes wrong, when, and what a caller sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lmstudio_integrations import errors
from tests.faults.faults import FAULTS, Phase
from tests.faults.proxy import Injection
from tests.faults.surfaces import CALL, Kind, Surface, ToolChoice

if TYPE_CHECKING:
    from tests.faults.cells import Cell

Words = list[str]
"""A response, word by word."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call comes to.

    Attributes:
        error: The error that it raises; `None` if it works.
        handled: The error of a second request, without which it works as well.
        timeout_name: Which timeout expires; without an error, on the host from which the call moves.
        changed: Turns the right response into the one that is returned, where nobody can notice the difference.
        note: What a reader must know besides.
        warning: What every call warns of.
        logged: What every call logs, once, as a warning; it begins with the model.
    """

    error: type[errors.LMStudioError] | None = None
    handled: type[errors.LMStudioError] | None = None
    timeout_name: str | None = None
    changed: Callable[[Words], Words] | None = None
    note: str = ""
    warning: type[Warning] | None = None
    logged: str = ""


WORKS = Outcome()
LOST = Outcome(errors.LMStudioConnectionLostError)
UNREACHABLE = Outcome(errors.LMStudioUnreachableError)
CLOSED_EARLY = Outcome(errors.LMStudioChannelClosedError)
PROTOCOL = Outcome(errors.LMStudioProtocolError)


def expires(timeout_name: str) -> Outcome:
    """Return the outcome of a call whose timeout expires."""
    return Outcome(errors.LMStudioTimeoutError, timeout_name=timeout_name)


def moves_after(timeout_name: str) -> Outcome:
    """Return the outcome of a call that moves to the other host when a timeout has expired."""
    return Outcome(timeout_name=timeout_name, note=f"on the other host after `{timeout_name}`")


CONNECTING, LOADING, QUEUED, IDLE = map(expires, ("connect_timeout", "load_timeout", "queue_timeout", "idle_timeout"))


def changes(note: str, changed: Callable[[Words], Words]) -> Outcome:
    """Return the outcome of a call that returns another response, unnoticed."""
    return Outcome(changed=changed, note=note)


_RETRYABLE = {errors.LMStudioConnectionLostError, errors.LMStudioUnreachableError, errors.LMStudioTimeoutError}

Renewal = Literal["same connection", "new connection", "either connection", "other host"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: What goes wrong, as a sentence.
        phase: When.
        chat: What a prediction comes to.
        embedding: What an embedding comes to; `same` as a prediction, or `None` where it cannot happen.
        reranker: What a call of a reranker comes to, in the same way. Its responses of one token have no middle.
        inject: What the proxy does.
        steps: What the scripted model does instead of generating.
        embedding_steps: What it does instead of embedding.
        load_steps: What the scripted model does when it is loaded.
        window: The context length of the model, if the prompt does not fit.
        tool_choice: The choice with which the observed call offers a tool, if it does. The model is to call it after
            its text.
        call: The call that the response then has.
        has_thought: Whether the conversation of each call has an earlier thought. The last prompt has none.
        max_tokens: After how many tokens the observed call ends: within a thought. The next call continues its
            conversation, without the thought.
        makes_room: Whether another model is evicted for this one (`load_policy="fit"`), on a device of each surface.
        between: What happens between two calls; the second of them is the one that is observed.
        stop: What the caller does in place of the observed call.
        only: Which surfaces this can happen to, of those with an outcome.
        regenerated: Whether adapters make calls again whatever `max_retries` says, if nothing was delivered.
        permanent: Whether it lasts for ever.
        meanwhile: What another call comes to while the fault lasts.
        then: What the next call comes to, once the fault is over.
        then_on: Which connection the next call uses; on the `other host`, if there is one.
        noticed: Whether the next call waits until the client knows that the connection is gone.
        keepalive: Seconds of silence after which the client pings.
        listening: Whether the port accepts connections.
        scheme: How the client connects.
        tls: Whether the server speaks TLS.
        trusted: Whether the client trusts its certificate.
        fault: The name of the fault in the package's table, if it is there.
    """

    name: str
    phase: Phase
    chat: Outcome
    embedding: "Outcome | Literal['same'] | None" = "same"
    reranker: "Outcome | Literal['same'] | None" = "same"
    inject: tuple[Injection, ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    embedding_steps: tuple[Mapping[str, Any], ...] = ()
    load_steps: tuple[Mapping[str, Any], ...] = ()
    window: int | None = None
    tool_choice: ToolChoice | None = None
    call: Mapping[str, Any] = field(default_factory=lambda: CALL)
    has_thought: bool = False
    max_tokens: int | None = None
    makes_room: bool = False
    between: "Callable[[Cell], None] | None" = None
    stop: "Callable[[Cell], None] | None" = None
    only: Callable[[Surface], bool] = lambda surface: True
    regenerated: bool = False
    permanent: bool = False
    meanwhile: Outcome | None = None
    then: Outcome = WORKS
    then_on: Renewal = "same connection"
    noticed: bool = False
    keepalive: float = 20.0
    listening: bool = True
    scheme: Literal["ws", "wss"] = "ws"
    tls: bool = False
    trusted: bool = True
    fault: str = ""

    def outcome(self, kind: Kind) -> Outcome | None:
        """Return what a call of a kind comes to; `None` where the fault cannot happen to it."""
        if kind == "reranker" and self.phase is Phase.MIDDLE:
            return None
        outcome = {"chat": self.chat, "embedding": self.embedding, "reranker": self.reranker}[kind]
        return self.chat if outcome == "same" else outcome

    def happens_to(self, surface: Surface) -> bool:
        """Whether the fault can happen to a surface."""
        return (
            self.outcome(surface.kind) is not None
            and self.only(surface)
            and (surface.has_hosts or not self.has_other_host)
        )

    @property
    def waits(self) -> bool:
        """Whether a timeout is to expire."""
        outcomes = self.chat, self.embedding, self.reranker, self.meanwhile, self.then
        return self.keepalive < 20.0 or any(isinstance(each, Outcome) and each.timeout_name for each in outcomes)

    @property
    def has_other_host(self) -> bool:
        """Whether there is a second host, which works."""
        return self.then_on == "other host"

    @property
    def leaves(self) -> tuple[str, ...]:
        """The parts of the package that it is about and that can be deleted."""
        if self.has_other_host:
            return ("hosts",)
        if self.makes_room:
            return ("devices", "planning")
        if self.tool_choice is not None:
            return ("required_tool_fallback" if self.tool_choice == "required" else "calls_in_text",)
        return ()

    @property
    def is_about_thoughts(self) -> bool:
        """Whether conversations have thoughts, which all calls are to send."""
        return self.has_thought or self.max_tokens is not None

    @property
    def denies_loads(self) -> bool:
        """Whether the server denies to load a model, which it might load just in time."""
        return self.chat.error is errors.LMStudioInsufficientResourcesError

    def is_retried(self, surface: Surface, outcome: Outcome | None) -> bool:
        """Whether an adapter with `max_retries` makes a request again that came to this."""
        error = None if outcome is None else outcome.error or outcome.handled
        if outcome is None or error not in _RETRYABLE:
            return False
        if error is errors.LMStudioTimeoutError:
            return outcome.timeout_name == "connect_timeout"
        has_begun = surface.streams and self.phase in {Phase.MIDDLE, Phase.LAST}
        return error is errors.LMStudioUnreachableError or not has_begun

    def may_be_retried(self, surface: Surface) -> bool:
        """Whether `max_retries` changes anything in this row."""
        return any(self.is_retried(surface, outcome) for outcome in (self.outcome(surface.kind), self.meanwhile))


def row(
    fault: str,
    chat: Outcome,
    embedding: "Outcome | Literal['same'] | None" = "same",
    **members: Any,
) -> Row:
    """Return the row of a fault of the package's table, injected by the proxy unless the model has scripted steps."""
    found = FAULTS[fault]
    is_scripted = bool(members.keys() & {"steps", "embedding_steps", "load_steps"})
    known = {
        "name": found.summary,
        "phase": found.phase,
        "inject": () if is_scripted else found.injections,
        "listening": bool(found.injections),
    }
    return Row(chat=chat, embedding=embedding, fault=fault, **{**known, **members})
