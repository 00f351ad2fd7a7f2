"""Running an operation on a handle's model: in its turn, and again after the model was unloaded."""

import logging
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from typing import Any, TypeVar

from lmstudio_integrations._renewals import renewal_pauses
from lmstudio_integrations.client._binding import Binding, Operation, named
from lmstudio_integrations.client._policies import resolve
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, wait_for
from lmstudio_integrations.errors import LMStudioModelNotFoundError, LMStudioModelUnloadedError
from lmstudio_integrations.protocol.errors import details_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNLOADED = {"generic.noModelMatchingQuery", "generic.identifierNotFound", "generic.specificModelUnloaded"}
"""Codes of errors about the instance that a request is for."""


def prepare(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find or load the model, as the load policy says; return its identifier."""
    return (yield from _in_turn(dispatcher.for_one(), binding, resolve))


def on_model(dispatcher: Dispatcher[Any], binding: Binding, operation: Operation[T]) -> Flow[T]:
    """Run an operation that does not need the model at work; find or load it if the handle has never been used."""
    dispatcher = dispatcher.for_one()
    if binding.identifier is None:
        return (yield from _in_turn(dispatcher, binding, partial(_resolve_and_run, operation=operation, renew=False)))
    return (yield from _run(dispatcher, binding, operation, binding.identifier))


def with_model(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    operation: Operation[T],
    *,
    renewals: Iterator[float] | None = None,
    renew: bool = False,
) -> Flow[T]:
    """Run an operation that needs the model at work; find or load it again if it was unloaded.

    The operation must not raise the errors that mean "unloaded" once it has delivered something.

    Args:
        dispatcher: The way to the server.
        binding: The model.
        operation: What to run.
        renewals: The seconds to wait before each renewal, where other parts of the operation renew as well.
        renew: Whether the model is known to be unloaded.
    """
    dispatcher = dispatcher.for_one()
    while True:
        work = partial(_resolve_and_run, operation=operation, renew=renew)
        try:
            return (yield from _in_turn(dispatcher, binding, work))
        except LMStudioModelUnloadedError:
            renewals = renewal_pauses() if renewals is None else renewals
            seconds = next(renewals, None) if binding.renewable else None
            if seconds is None:
                raise
        logger.info("model %r was unloaded; it is loaded again", binding.identifier)
        renew = True
        yield from wait_for(dispatcher.pause(seconds))


def _in_turn(
    dispatcher: Dispatcher[Any], binding: Binding, work: Callable[[Dispatcher[Any], Binding], Flow[T]]
) -> Flow[T]:
    """Do what needs the model; where models evict each other, wait until no call of another one runs."""
    turn = dispatcher.models.turn_for(binding.kind, binding.key, binding.reference)
    if turn is None:
        return (yield from work(dispatcher, binding))
    try:
        yield from wait_for(dispatcher.wait_for_turn(turn))
        result = yield from work(dispatcher.with_turn(turn), binding)
        turn.used = True
        return result
    finally:
        dispatcher.end_turn(turn)


def _resolve_and_run(dispatcher: Dispatcher[Any], binding: Binding, *, operation: Operation[T], renew: bool) -> Flow[T]:
    renew = renew or (binding.renewable and dispatcher.models.is_evicted(binding.reference))
    identifier = None if renew else binding.identifier
    if identifier is None:
        identifier = yield from resolve(dispatcher, binding)
    return (yield from _run(dispatcher, binding, operation, identifier))


def _run(dispatcher: Dispatcher[Any], binding: Binding, operation: Operation[T], identifier: str) -> Flow[T]:
    try:
        return (yield from operation(dispatcher, named(identifier)))
    except LMStudioModelNotFoundError as error:
        raise as_unloaded(dispatcher, binding, error) from error


def as_unloaded(
    dispatcher: Dispatcher[Any], binding: Binding, error: LMStudioModelNotFoundError
) -> LMStudioModelNotFoundError:
    """Return what an error about a model means that was loaded before.

    A request may name a second model, such as the draft model. If that is the one not found, the error stays.
    """
    code = (error.display_data or {}).get("code")
    if code not in _UNLOADED if code else "cannot find" in str(error).lower():
        return copy(error)  # an error cannot be its own cause
    return unloaded_error(dispatcher, binding, **details_of(error))


def unloaded_error(dispatcher: Dispatcher[Any], binding: Binding, **details: Any) -> LMStudioModelUnloadedError:
    """Return the error of a model that was loaded and no longer is, with what is known of the reason."""
    if binding.given_up:
        reason = "this handle unloaded it"
    else:
        reason = dispatcher.models.why_unloaded(binding.kind, binding.key, binding.reference)
    text = f"model {binding.name!r} was unloaded: {reason}"
    return LMStudioModelUnloadedError(text, retryable=binding.renewable, **details)
