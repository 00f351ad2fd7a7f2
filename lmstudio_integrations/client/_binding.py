"""Which model a handle means, and how it is to be loaded.

`_loading.py` finds or loads the instance, `_operations.py` runs something on it.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from lmstudio_integrations.client.transport.dispatcher import Dispatcher
from lmstudio_integrations.client.transport.flight import Flight, Flights
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.types.config import LoadPolicy, LoadSettings, ModelKind, OnConfigMismatch
from lmstudio_integrations.types.models import by_identifier

T = TypeVar("T")
Specifier: TypeAlias = Mapping[str, Any]
"""Which model a request is for, as it travels (protocol §5.1)."""
Operation: TypeAlias = Callable[[Dispatcher[Any], Specifier], Flow[T]]
"""What is done with a model, over a dispatcher whose total limit counts getting the model as well."""
OnProgress = Callable[[float], Any]


@dataclass(slots=True)
class Binding:
    """Which model a handle means.

    Attributes:
        kind: Language model or embedding model.
        key: The model key or identifier that the user named; `None` is any loaded model.
        identifier: The instance, once it is known.
        reference: The instance reference, which no other load shares.
        policy: What to do when it is not loaded.
        ttl: Seconds of idle time, if this loads; `None` sends none.
        config: Load settings, if this loads.
        on_config_mismatch: What to do when it is loaded with other settings.
        on_load_progress: Called with how much is loaded, 0.0 to 1.0.
        requested_identifier: The identifier of a new instance.
        given_up: Whether the user has unloaded it.
        own_reference: The instance that this binding loaded last, rather than found.
        flights: The load of the new instance, while it runs.
    """

    kind: ModelKind
    key: str | None = None
    identifier: str | None = None
    policy: LoadPolicy = "get_or_load"
    ttl: float | None = None
    config: LoadSettings | None = None
    on_config_mismatch: OnConfigMismatch = "warn"
    on_load_progress: OnProgress | None = None
    requested_identifier: str | None = None
    given_up: bool = False
    reference: str | None = None
    own_reference: str | None = None
    flights: Flights = field(default_factory=dict[Hashable, Flight], repr=False)

    @property
    def renewable(self) -> bool:
        """Whether the model may be loaded again when it has been unloaded."""
        return self.policy in {"get_or_load", "explicit"} and self.key is not None and not self.given_up

    @property
    def name(self) -> str:
        """The identifier, where it is known, else what the user named."""
        return self.identifier or self.key or "any loaded model"


@lru_cache(maxsize=256)
def named(identifier: str) -> Specifier:
    """Return the specifier of an instance."""
    return by_identifier(identifier).to_dict()
