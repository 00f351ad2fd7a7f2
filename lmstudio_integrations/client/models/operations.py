"""Run an operation on a handle's model: wait for its turn, and retry it if the model was unloaded.

Used by `queries.py` and `predictions/run.py`. Built on `policies.py`, which finds or loads the model, and on
`server_models.py`, which knows the models that evict each other.
"""

import logging
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, NoReturn

from lmstudio_integrations.client.models.binding import Binding, ModelWork
from lmstudio_integrations.client.models.loading import instance_specifier
from lmstudio_integrations.client.models.policies import POLICIES
from lmstudio_integrations.client.models.retries import Retries, retried
from lmstudio_integrations.client.models.server_models import ServerModels, models_of
from lmstudio_integrations.client.models.turns import Turn, Turns
from lmstudio_integrations.client.telemetry.spans import add_retry
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T, wait_for
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.protocol.errors import details_of, with_advice, with_window
from lmstudio_integrations.types.config import ModelKind

logger = logging.getLogger(__name__)

_UNLOADED = {"generic.noModelMatchingQuery", "generic.identifierNotFound", "generic.specificModelUnloaded"}
"""Error codes that mean: the requested instance is not loaded."""

EXPLAINED = (LMStudioModelNotFoundError, LMStudioContextOverflowError)
"""The errors of calls to a model about which this process may know more than the server says."""

_OTHER_KIND: dict[ModelKind, ModelKind] = {"llm": "embedding", "embedding": "llm"}


def prepare(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find or load the model, as its load policy says; return its identifier."""
    return _in_turn(dispatcher.for_operation(), binding, models_of(dispatcher), resolve)


def resolve(dispatcher: Dispatcher[Any], binding: Binding) -> Flow[str]:
    """Find or load the instance that a handle means, according to its load policy; return its identifier."""
    try:
        return (yield from POLICIES["require_loaded" if binding.key is None else binding.policy](dispatcher, binding))
    except LMStudioWrongModelKindError as error:
        if (error.display_data or {}).get("actualDomain", _OTHER_KIND[binding.kind]) != _OTHER_KIND[binding.kind]:
            raise
        raise with_advice(error, _use_counterpart(binding)) from None  # it repeats the whole error


def _use_counterpart(binding: Binding) -> str:
    """Return advice for a model that is of the other kind than its handle."""
    other = _OTHER_KIND[binding.kind]
    if binding.counterpart is None:
        return f"use client.{other}.model({binding.key!r})"
    return f"use {binding.counterpart}(model={binding.key!r})"


def inspect_instance(dispatcher: Dispatcher[Any], binding: Binding, work: ModelWork[T]) -> Flow[T]:
    """Run a request about an instance, such as its info. It needs no turn and does not load the model again.

    A handle that has never been used finds or loads its model first.
    """

    def attempt(dispatcher: Dispatcher[Any]) -> "Flow[T]":
        if binding.identifier is not None:
            return _run(dispatcher, binding, work, binding.identifier)
        models = models_of(dispatcher)
        return _in_turn(dispatcher, binding, models, partial(_resolve_and_run, models=models, work=work, reload=False))

    return retried(dispatcher, attempt)


def use_model(dispatcher: Dispatcher[Any], binding: Binding, work: ModelWork[T]) -> Flow[T]:
    """Run work that uses the model; find it, or load it again if it was unloaded.

    The work must not raise the errors that mean "unloaded" once it has delivered something.
    """
    return retried(dispatcher, lambda dispatcher: attempt_with_model(dispatcher, binding, work, Retries()))


def attempt_with_model(
    dispatcher: Dispatcher[Any], binding: Binding, work: ModelWork[T], retries: Retries, *, reload: bool = False
) -> Flow[T]:
    """Run work that uses the model, as one attempt of an operation that counts its own retries. See `use_model`.

    Args:
        dispatcher: Sends the requests of this operation.
        binding: The model.
        work: What to run.
        retries: Counts how often the operation loads the model again.
        reload: Whether the model is known to be unloaded.
    """
    models = models_of(dispatcher)
    while True:
        try:
            run = partial(_resolve_and_run, models=models, work=work, reload=reload)
            return (yield from _in_turn(dispatcher, binding, models, run))
        except LMStudioModelUnloadedError as error:
            seconds = retries.next_delay(error) if binding.reloadable else None
            if seconds is None:
                raise
            if dispatcher.trace_context is not None:
                add_retry(dispatcher.trace_context, error)
        logger.info("model %r was unloaded; loading it again", binding.identifier)
        reload = True
        yield from wait_for(dispatcher.pause(seconds))


def _in_turn(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    models: ServerModels,
    work: Callable[[Dispatcher[Any], Binding], Flow[T]],
) -> Flow[T]:
    """Run work that needs the model; where models evict each other, wait until no call of another one runs."""
    turn = models.turn_for(binding.kind, binding.key, binding.reference)
    return work(dispatcher, binding) if turn is None else _run_in_turn(dispatcher, binding, work, models.turns, turn)


def _run_in_turn(
    dispatcher: Dispatcher[Any],
    binding: Binding,
    work: Callable[[Dispatcher[Any], Binding], Flow[T]],
    turns: Turns,
    turn: Turn,
) -> Flow[T]:
    turn.waiter = dispatcher.make_waiter()
    if turns.would_deadlock(turn):  # better to evict a model than to wait for ever
        return (yield from work(dispatcher, binding))
    loads_before = len(dispatcher.load_times)
    queue_timeout, remaining = dispatcher.timeouts.get("queue_timeout"), dispatcher.remaining_time
    try:
        yield from wait_for(dispatcher.run_task(lambda: turns.wait(turn, queue_timeout, remaining)))
        result = yield from work(dispatcher.with_sinks(partial(turns.shared_by, turn)), binding)
        turn.succeeded = True
        return result
    finally:
        turn.forget_caller()
        turn.loaded = len(dispatcher.load_times) > loads_before  # each load of the operation adds its time
        dispatcher.submit(turns.end, turn)


def _resolve_and_run(
    dispatcher: Dispatcher[Any], binding: Binding, *, models: ServerModels, work: ModelWork[T], reload: bool
) -> Flow[T]:
    identifier = binding.identifier
    if identifier is None or reload or (models.is_evicted(binding.reference) and binding.reloadable):
        identifier = yield from resolve(dispatcher, binding)
    return (yield from _run(dispatcher, binding, work, identifier))


def _run(dispatcher: Dispatcher[Any], binding: Binding, work: ModelWork[T], identifier: str) -> Flow[T]:
    try:
        return (yield from work(dispatcher, instance_specifier(identifier)))
    except EXPLAINED as error:
        raise_explained(dispatcher, binding, error)


def raise_explained(
    dispatcher: Dispatcher[Any], binding: Binding, error: LMStudioModelNotFoundError | LMStudioContextOverflowError
) -> NoReturn:
    """Raise an error about a model with what this process knows of that model."""
    if isinstance(error, LMStudioContextOverflowError):
        raise with_window(error, *(binding.context_window or (None, None))) from None
    raise _as_unloaded(dispatcher, binding, error) from error


def _as_unloaded(
    dispatcher: Dispatcher[Any], binding: Binding, error: LMStudioModelNotFoundError
) -> LMStudioModelNotFoundError:
    """Return what a not-found error means for a model that was loaded before.

    A request may name a second model, such as the draft model. If that is the one not found, the error stays.
    """
    code = (error.display_data or {}).get("code")
    # Without a code, the text decides: `Model "x" not found` means the requested instance, `Cannot find model "x"` a
    # model on the disk, such as the draft model.
    is_unloaded = code in _UNLOADED if code else "cannot find" not in str(error).lower()
    if not is_unloaded:
        return copy(error)  # an error cannot be its own cause
    return unloaded_error(dispatcher, binding, **details_of(error))


def unloaded_error(dispatcher: Dispatcher[Any], binding: Binding, **details: Any) -> LMStudioModelUnloadedError:
    """Return the error of a model that was loaded and no longer is, with the reason as far as it is known."""
    if binding.unloaded_by_user:
        reason = "this handle unloaded it"
    else:
        reason = models_of(dispatcher).why_unloaded(binding.kind, binding.key, binding.reference)
    text = f"model {binding.name!r} was unloaded: {reason}"
    return LMStudioModelUnloadedError(text, retryable=binding.reloadable, **details)
