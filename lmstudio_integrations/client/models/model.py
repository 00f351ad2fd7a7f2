"""A model as a handle uses it: the server, which model of it, and what users do with a model of either kind."""

from collections.abc import Callable
from typing import Any, Self

from lmstudio_integrations.client.models import queries
from lmstudio_integrations.client.models.attempts import Attempts
from lmstudio_integrations.client.models.server_models import ServerModels
from lmstudio_integrations.client.models.state import Instance, ModelState, device_of, reference_of
from lmstudio_integrations.client.support.arguments import texts_of
from lmstudio_integrations.client.transport.client_context import NO_TIMEOUTS, ClientContext
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.protocol.exchange import Timeouts
from lmstudio_integrations.types.hosts import DEFAULT_PARALLEL, PARALLEL_KEY, parallel_of
from lmstudio_integrations.types.models import InstanceProcessingState, ModelInstanceInfo

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

    def attempts(self, timeouts: Timeouts = NO_TIMEOUTS, *, reload: bool = True) -> Attempts:
        """Return the attempts of an operation.

        Args:
            timeouts: Timeouts that differ from the client's.
            reload: See `Attempts`.
        """
        return Attempts(self.context, self.state, timeouts, reload=reload)

    # Flows ------------------------------------------------------------------------------------------------------------

    def on_instance(self, work: Callable[[Operation, Instance], Flow[T]], *, reload: bool = True) -> Flow[T]:
        """Return what `work` returns for the loaded instance; find or load that first, and try again as `Attempts` do.

        Args:
            work: Makes the calls of an attempt.
            reload: See `Attempts`.
        """
        attempts = self.attempts(reload=reload)

        def work_on_instance(operation: Operation) -> Flow[T]:
            return (yield from work(operation, (yield from attempts.get_instance())))

        return (yield from attempts.run(work_on_instance))

    def load(self) -> Flow[None]:
        """Find or load the instance, as the load policy says, even if there is one."""
        attempts = self.attempts()
        attempts.resolve = True
        yield from attempts.run(lambda _: attempts.get_instance())

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

    def get_info(self, *, load: bool = False) -> Flow[ModelInstanceInfo]:
        """Return the info of the instance; with `load`, load the model first if it was unloaded."""
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.look_up(operation, self.state.kind, instance.specifier), reload=load
            )
        )

    def get_load_fields(self) -> Flow[dict[str, Any]]:
        """Return the settings that the instance was loaded with, by their wire keys."""
        return (
            yield from self.on_instance(
                lambda operation, instance: queries.get_load_config(operation, self.state.kind, instance.specifier),
                reload=False,
            )
        )

    def slots(self) -> Flow[list[int]]:
        """Return how many calls the instance runs at once, as a list: several hosts have one number each."""
        fields = yield from self.get_load_fields()
        return [parallel_of(fields.get(PARALLEL_KEY)) or DEFAULT_PARALLEL[self.state.kind]]

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
