"""A model as a handle uses it, and an operation on it with its attempts.

Each attempt finds or loads the instance in its turn. An operation is tried again only while the caller has received
nothing of the response: up to `max_retries` times if no server responds or the connection is lost, and independently of
that up to three times if its model was unloaded.
"""

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.client.concurrency.flows import Flow, T
from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.loading import Loader
from lmstudio_integrations.client.models.state import (
    Instance,
    KeptWarm,
    ModelState,
    ServerModels,
    device_of,
    identifier_of,
    reference_of,
)
from lmstudio_integrations.client.support.arguments import texts_of
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioConnectionLostError,
    LMStudioContextOverflowError,
    LMStudioEngineLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioServerError,
    LMStudioTimeoutError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.protocol.errors import details_of, means_unloaded, with_window
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.config import slots_of
from lmstudio_integrations.types.models import InstanceProcessingState, ModelInstanceInfo
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult

logger: logging.Logger = logging.getLogger(__name__)

RELOAD_DELAYS = (0.0, 0.2, 1.0)
"""Mean seconds before each reload. They vary, so that programs that evict each other's models get out of step."""

INITIAL_DELAY, MAX_DELAY = 0.5, 8.0
"""Seconds before the first retry after a failed connection; doubled each time, up to the maximum."""


@dataclass(slots=True)
class Retries:
    """Counts the retries of one operation.

    Attributes:
        max_retries: How often it may be tried again after a failed connection.
        connection_retries: How many of these were used.
        reloads: How often its model was loaded again.
    """

    max_retries: int = 0
    connection_retries: int = 0
    reloads: int = 0

    def next_delay(self, error: LMStudioError) -> float | None:
        """Count a retry, and return the seconds to wait before it; `None` if there must be none."""
        if isinstance(error, LMStudioModelUnloadedError):
            if self.reloads == len(RELOAD_DELAYS):
                return None
            self.reloads += 1
            return random.uniform(0.5, 1.5) * RELOAD_DELAYS[self.reloads - 1]  # noqa: S311 - no secret
        if self.connection_retries >= self.max_retries or not is_retryable(error):
            return None
        self.connection_retries += 1
        return min(INITIAL_DELAY * 2.0 ** (self.connection_retries - 1), MAX_DELAY)


class ModelOperation(Operation):
    """One operation on a model. Each attempt finds or loads the instance; a failure may start another.

    A reload is a part of the attempt and its `total_timeout`, a retry after a failed connection is not. `run` makes the
    attempts. A prediction, which is read in many steps, has a loop of its own that calls the same methods.

    Args:
        context: The server, and how it is called.
        state: The model.
        timeouts: Timeouts that differ from the client's.
        reload: Whether the model is loaded again if it was unloaded. A request that only asks about the instance does
            not do that.

    Attributes:
        resolve: Whether to find or load the instance even if the handle has one.
        is_running: Whether an attempt is running. The further asks of a prediction are parts of it.
    """

    def __init__(
        self,
        context: ClientContext,
        state: ModelState,
        timeouts: Timeouts = NO_TIMEOUTS,
        *,
        reload: bool = True,
    ) -> None:
        super().__init__(context, timeouts)
        self.state: ModelState = state
        self._reload = reload
        self.resolve: bool = False
        self.is_running: bool = False
        self._is_reload = False
        """Whether the next attempt loads the model again, so that it shares the total timeout of the last one."""
        self._retries = Retries(context.max_retries)
        self._delay: float | None = None
        self._instance: Instance | None = None

    @property
    def queue_name(self) -> str | None:
        instance = self._instance
        return dumps(instance.query) if instance is not None and instance.by_reference else None

    def run(self, work: Callable[[Operation], Flow[T]]) -> Flow[T]:
        """Return what `work` returns in the first attempt that succeeds; it makes its calls with this operation."""
        while True:
            try:
                yield from self.next_attempt()
                return (yield from work(self))
            except LMStudioError as error:
                error = self.explain(error)  # under no other name: its traceback refers to this frame
                if not self.should_retry(error):
                    raise error  # noqa: TRY201 - it may be another one, and has its cause

    def next_attempt(self) -> Flow[None]:
        """Begin the next attempt, after a pause if another one has failed."""
        delay, self._delay, self._instance, self.is_running = self._delay, None, None, True
        if delay is not None and self._is_reload:
            yield from self.pause(delay)
            return
        if delay:
            yield from self.context.pause(delay)
        self._begin()

    def get_instance(self) -> Flow[Instance]:
        """Return the instance, which may have to be loaded."""
        state, server_models = self.state, self.context.shared(ServerModels)
        instance, reloads = state.instance, self._reload and state.reloadable
        is_gone = instance is None or instance.is_gone or server_models.is_evicted(instance.reference)
        if instance is None or self.resolve or (reloads and is_gone):
            instance = yield from Loader(self, state).find_or_load()
            self.resolve = False
        self._instance = instance
        kept = state.kept_warm
        if self._reload and kept is not None and kept.reference != instance.reference:
            yield from self._warm_again(kept, instance)
        return instance

    def _warm_again(self, kept: KeptWarm, instance: Instance) -> Flow[None]:
        """Process a prefix on a new instance, before the call for which that was loaded or found.

        Not if a load of this process has evicted the previous one: then memory is short.
        """
        previous, kept.reference = kept.reference, instance.reference  # at once: other calls need not wait for it
        if self.context.shared(ServerModels).is_evicted(previous):
            return
        self.listener.on_warm_again(self.context.target, self.state.key)
        try:
            yield from kept.process(self.child_context().with_timeouts(self.timeouts))
        except LMStudioServerError as error:  # the call itself may succeed
            logger.info("the prefix of %r could not be processed again: %s", self.state.name, error)
        except BaseException as error:  # the next call tries it once more
            if kept.reference == instance.reference:
                kept.reference = previous
            is_out_of_time = isinstance(error, LMStudioTimeoutError) and error.timeout_name == "total_timeout"
            if is_out_of_time or not isinstance(error, LMStudioError):
                raise
            logger.info("the prefix of %r was not processed again: %s", self.state.name, error)

    def recognize(self, instance: Instance, end: PredictionEnd) -> Instance:
        """Return the instance that has responded: another program may have loaded the model again in the meantime.

        Args:
            instance: The instance that the request was for.
            end: The end of the response; what it reports of the one that responded may lack anything.
        """
        info = end.model_info
        reference, responding = reference_of(info), instance
        is_other = None not in {reference, instance.reference} and reference != instance.reference
        if is_other and info.get("identifier") == instance.identifier:
            server_models = self.context.shared(ServerModels)
            server_models.record(self.state.kind, self.state.key, info)
            responding = server_models.instance_of(info)
            if self.state.instance is instance:
                self.state.instance = responding
        responding.info, responding.load_config = {**responding.info, **info}, end.load_model_config
        return responding

    def should_retry(self, error: LMStudioError, *, seen: bool = False) -> bool:
        """Record that the attempt has failed; return whether another one follows.

        Args:
            error: The failure.
            seen: Whether the caller has received a part of the response, so that there must not be another attempt.
        """
        is_unloaded = isinstance(error, LMStudioModelUnloadedError)
        if is_unloaded and self._instance is not None:
            self._instance.is_gone = True
        may_retry = not seen and (not is_unloaded or (self._reload and self.state.reloadable))
        delay = self._retries.next_delay(error) if may_retry else None
        if delay is None:
            return False
        logger.info("an attempt on model %r failed, and another one follows: %s", self.state.name, error)
        self.listener.on_retry(error)
        self._delay, self._is_reload, self.is_running = delay, is_unloaded, False
        return True

    def record_success(self, result: PredictionResult) -> None:
        """Record that a prediction has its result, for what chooses the host of the next one."""

    def release(self) -> None:
        """Release the slot of its host, if it runs on one of several. Any thread may call it."""

    def final_error(self, error: LMStudioError) -> LMStudioError:
        """Return the error of the operation, whose last attempt has failed with an error."""
        return error

    def explain(self, error: LMStudioError) -> LMStudioError:
        """Return an error of the server with what this process knows of the model."""
        if self._instance is None:  # it is about finding or loading the model
            return error
        if isinstance(error, LMStudioContextOverflowError):
            explained: LMStudioError = with_window(error, *(self._instance.context_window or (None, None)))
            explained.__suppress_context__ = True  # it says all that the other says
            return explained
        if isinstance(error, LMStudioEngineLostError):
            error.retryable = self.state.reloadable
            return error
        return self._as_unloaded(error) if isinstance(error, LMStudioModelNotFoundError) else error

    def _as_unloaded(self, error: LMStudioModelNotFoundError) -> LMStudioError:
        """Return what a not-found error means for a model that was loaded before."""
        if not means_unloaded(error):
            return error
        unloaded = self.unloaded_error(**details_of(error))
        unloaded.__cause__ = error
        return unloaded

    def unloaded_error(self, **details: Any) -> LMStudioModelUnloadedError:
        """Return the error of a model that was loaded and no longer is, with the reason as far as it is known."""
        reason = self.context.shared(ServerModels).why_unloaded(self.state)
        text = f"model {self.state.name!r} was unloaded: {reason}"
        return LMStudioModelUnloadedError(text, retryable=self.state.reloadable, **details)


def is_retryable(error: LMStudioError) -> bool:
    """Whether an error means that the operation may be tried again on a new connection."""
    return (
        isinstance(error, LMStudioUnreachableError)
        or (isinstance(error, LMStudioConnectionLostError) and error.retryable)
        or (isinstance(error, LMStudioTimeoutError) and error.timeout_name == "connect_timeout")  # nothing was sent
    )


Texts = list[str] | tuple[str, ...]


class Model:
    """A model on one server. `hosts/` has models on several.

    Args:
        context: The server, and how it is called.
        state: Which model, and what is known of it; may be shared with other models.
    """

    def __init__(self, context: ClientContext, state: ModelState) -> None:
        self.context = context
        self.state = state

    @property
    def server_models(self) -> ServerModels:
        """What this process knows of the models of the server."""
        return self.context.shared(ServerModels)

    @property
    def model_key(self) -> str | None:
        """The key of the model, once it is known."""
        return self.server_models.model_key(self.state.kind, self.state.key)

    def with_context(self, change: Callable[[ClientContext], ClientContext]) -> Self:
        """Return the same model, called in another way: `change` is one of the `with_` methods of contexts."""
        return type(self)(change(self.context), self.state)

    def with_retries(self, max_retries: int) -> Self:
        """Return the same model, whose operations are tried again after a failed connection."""
        return self.with_context(lambda context: context.with_retries(max_retries))

    def operation(self, timeouts: Timeouts = NO_TIMEOUTS, *, reload: bool = True) -> ModelOperation:
        """Return an operation on the model.

        Args:
            timeouts: Timeouts that differ from the client's.
            reload: See `ModelOperation`.
        """
        return ModelOperation(self.context, self.state, timeouts, reload=reload)

    # Flows ------------------------------------------------------------------------------------------------------------

    def on_instance(self, work: Callable[[Operation, Instance], Flow[T]], *, reload: bool = True) -> Flow[T]:
        """Return what `work` returns for the loaded instance; find or load that first, and try again as operations do.

        Args:
            work: Makes the calls of an attempt.
            reload: See `ModelOperation`.
        """
        operation = self.operation(reload=reload)

        def work_on_instance(_: Operation) -> Flow[T]:
            return (yield from work(operation, (yield from operation.get_instance())))

        return (yield from operation.run(work_on_instance))

    def load(self) -> Flow[None]:
        """Find or load the instance, as the load policy says, even if there is one."""
        operation = self.operation()
        operation.resolve = True
        yield from operation.run(lambda _: operation.get_instance())

    def unload(self) -> Flow[None]:
        """Unload the instance; the handle does not load it again automatically."""
        state = self.state
        state.unloaded_by_user = True
        if state.instance is None and state.policy == "new_instance":
            yield from self.unload_if_loaded_here()  # a loaded instance with this key may belong to another program
            return
        if state.instance is None and state.key is None:
            yield from self.load()  # finds its identifier
        operation, instance = Operation(self.context), state.instance
        device = instance.device if instance else (yield from queries.on_device(operation, state.device))
        yield from queries.unload(operation, state.kind, state.name, device)

    def unload_if_loaded_here(self) -> Flow[None]:
        """Unload the instance that the handle loaded, if it is still loaded; one that the handle found stays."""
        state, operation = self.state, Operation(self.context)
        for info in (yield from queries.list_wire_infos(operation, state.kind)) if state.loaded_here else ():
            if reference_of(info) == state.loaded_here:
                yield from queries.unload(operation, state.kind, info["identifier"], device_of(info))

    def unload_if_loaded(self) -> Flow[None]:
        """Unload the instance that calls use, whoever loaded it, if there is one. The next call gets or loads another.

        Without a key, that is the instance of the last call; under `new_instance`, the one that was loaded for it.
        """
        state, operation = self.state, Operation(self.context)
        if state.policy == "new_instance":
            yield from self.unload_if_loaded_here()
        else:
            known, infos = state.reference, (yield from queries.list_wire_infos(operation, state.kind))
            used = next((info for info in infos if known is not None and reference_of(info) == known), None)
            if used is None and state.key is not None:
                used = yield from Loader(self.operation(), state).find_loaded()
            if used is not None:
                with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
                    yield from queries.unload(operation, state.kind, identifier_of(used), device_of(used))
        state.instance = state.loaded_here = None

    def get_info(self, *, load: bool = False) -> Flow[ModelInstanceInfo]:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.look_up(operation, self.state.kind, instance.specifier), reload=load
            )
        )

    def get_load_fields(self) -> Flow[dict[str, Any]]:
        """Return the settings that the instance was loaded with, by their wire keys."""
        return (yield from self._load_fields(reload=False))

    def _load_fields(self, *, reload: bool) -> Flow[dict[str, Any]]:
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.get_load_config(operation, self.state.kind, instance.specifier),
                reload=reload,
            )
        )

    def slots(self) -> Flow[list[int | None]]:
        """Return how many calls the instance runs at once, as a list: several hosts have one number each.

        Calls follow, so the model is loaded again if it was unloaded.
        """
        fields = yield from self._load_fields(reload=True)
        return [slots_of(self.state.kind, fields)]

    def get_processing_state(self) -> Flow[InstanceProcessingState]:
        """Return what the instance is doing."""
        kind = self.state.kind
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.get_processing_state(operation, kind, instance.specifier),
                reload=False,
            )
        )

    def tokenize(self, texts: str | Texts) -> Flow[list[int] | list[list[int]]]:
        """Return the tokens of a text, or of each of several."""
        listed = texts_of(texts, "input")
        tokens = yield from self.on_instance(
            lambda operation, instance: queries.tokenize(operation, self.state.kind, instance.specifier, listed)
        )
        return tokens[0] if isinstance(texts, str) else tokens

    def count_tokens(self, texts: str | Texts) -> Flow[int | list[int]]:
        """Return the number of tokens of a text, or of each of several."""
        listed = texts_of(texts, "input")
        counts = yield from self.on_instance(
            lambda operation, instance: queries.count_tokens(operation, self.state.kind, instance.specifier, listed)
        )
        return counts[0] if isinstance(texts, str) else counts
