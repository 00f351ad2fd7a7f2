"""The state of a model handle: which model it means, how to load it, and the instance that it found or loaded.

`policies.py` finds or loads the instance; `operations.py` runs work on it.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from lmstudio_integrations.client.models.single_flight import Flight, Flights
from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flows import Flow, T
from lmstudio_integrations.types.config import LoadPolicy, LoadSettings, ModelKind, OnConfigMismatch

Specifier: TypeAlias = Mapping[str, Any]
"""Which model a request is for, in [wire form](docs/protocol.md#model-specifiers)."""
ModelWork: TypeAlias = Callable[[Dispatcher[Any], Specifier], Flow[T]]
"""Makes the requests of an operation on an instance. Their total `timeout` includes the time to get the model."""
OnProgress = Callable[[float], Any]


class ContextWindow(NamedTuple):
    """The context window of an instance in tokens, and the longest that its model can have, if it is known."""

    length: int
    maximum: int | None = None


@dataclass(slots=True)
class Binding:
    """Which model a handle means, and the instance once there is one. Several handles may share it.

    Attributes:
        kind: Language model or embedding model.
        key: The model key or identifier that the user gave; `None` is any loaded model.
        identifier: The identifier of the instance, once it is known.
        reference: The instance reference; each load has its own.
        policy: How the instance is found or loaded.
        ttl: Unload after this many idle seconds, if this handle loads the model; `None` sends none.
        config: Load settings, if this handle loads the model.
        on_config_mismatch: What to do if it is loaded with other settings.
        on_load_progress: Called with the progress of a load, 0.0 to 1.0.
        show_progress: Whether a bar shows it.
        requested_identifier: The identifier of a new instance.
        unloaded_by_user: Whether the user has unloaded it with this handle.
        own_reference: The reference of the instance that this binding loaded last.
        flights: The running load of a new instance, if there is one; other callers wait for it.
        context_window: The context window of the instance, once it is known.
        dimensions: The length of the vectors, once one was received.
        takes_late_system_messages: An instance, and whether its chat template takes system messages after the first
            turn, once it was asked.
        counterpart: What to call with the key of a model of the other kind; `None` is the native client.
    """

    kind: ModelKind
    key: str | None = None
    identifier: str | None = None
    policy: LoadPolicy = "get_or_load"
    ttl: float | None = None
    config: LoadSettings | None = None
    on_config_mismatch: OnConfigMismatch = "warn"
    on_load_progress: OnProgress | None = None
    show_progress: bool = False
    requested_identifier: str | None = None
    unloaded_by_user: bool = False
    reference: str | None = None
    own_reference: str | None = None
    flights: Flights = field(default_factory=dict[Hashable, Flight], repr=False)
    context_window: ContextWindow | None = None
    dimensions: int | None = None
    takes_late_system_messages: tuple[str | None, bool] | None = None
    counterpart: str | None = None

    @property
    def reloadable(self) -> bool:
        """Whether the model may be loaded again after it was unloaded, or another one take its place.

        Any language model takes the place of one without a key. Vectors of two models must not be mixed.
        """
        if self.unloaded_by_user:
            return False
        return self.kind == "llm" if self.key is None else self.policy in {"get_or_load", "explicit"}

    @property
    def name(self) -> str:
        """The identifier if it is known, else what the user gave."""
        return self.identifier or self.key or "any loaded model"
