"""Remembers the models of one server: which of them this process uses, and which evict each other.

`loading.py` records instances here. There is one object per server, shared by all clients
and new after a fork. Any thread may call it: each function changes one dict with one operation, which is atomic with
and without the GIL.
"""

from collections.abc import Hashable

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations.client.models.admission import ConcurrencyLimiter, SingleFlight
from lmstudio_integrations.client.models.state import (
    Instance,
    KnownReasoning,
    ModelState,
    WireInfo,
    device_of,
    reference_of,
)
from lmstudio_integrations.client.support.suggestions import FIT_BOTH, KEEP_LOADED
from lmstudio_integrations.client.support.tracebacks import warn_user
from lmstudio_integrations.errors import LMStudioEvictionWarning
from lmstudio_integrations.protocol.requests import UnloadModel
from lmstudio_integrations.types.config import ModelKind

_MAX_RECORDED = 256
"""Instances, and names of models, that are recorded at most."""


class ServerModels:
    """The models of one server as this process knows them."""

    def __init__(self) -> None:
        self.running_loads: dict[Hashable, SingleFlight] = {}
        """Explicit loads that are running."""
        self.explicit: BoundedCache[str, UnloadModel] = BoundedCache(_MAX_RECORDED)
        """The instances that this process loaded explicitly, by reference: what unloads each of them."""
        self._keys: BoundedCache[tuple[ModelKind, str | None], str] = BoundedCache(_MAX_RECORDED)
        self._instances: BoundedCache[str | None, str] = BoundedCache(_MAX_RECORDED)
        self._evicted: BoundedCache[str | None, str] = BoundedCache(_MAX_RECORDED)
        self._reasoning: BoundedCache[str, KnownReasoning] = BoundedCache(_MAX_RECORDED)
        self._pairs: dict[frozenset[str], None] = {}
        self._warned: dict[Hashable, object] = {}
        self.limiter: ConcurrencyLimiter = ConcurrencyLimiter()
        """How many batches of texts run at once on each model."""

    def record(self, kind: ModelKind, name: str | None, info: WireInfo) -> None:
        """Record an instance that this process uses.

        Args:
            kind: Its kind.
            name: What the caller gave: a model key, an identifier or a path.
            info: The info of the instance, from the server.
        """
        key, reference = info.get("modelKey"), reference_of(info)
        if isinstance(key, str):
            self.record_key(kind, name, key)
            if reference is not None:
                self._instances.put(reference, key)

    def record_key(self, kind: ModelKind, name: str | None, model_key: str) -> None:
        self._keys.put((kind, name), model_key)

    def model_key(self, kind: ModelKind, name: str | None) -> str | None:
        """Return the model key that a name was resolved to, if it ever was."""
        return self._keys.get((kind, name))

    def record_explicit(self, info: WireInfo) -> None:
        """Record an instance that this process loaded explicitly."""
        reference = reference_of(info)
        if reference is not None:
            self.explicit.put(reference, UnloadModel(identifier=info["identifier"], **device_of(info)))

    def is_explicit(self, reference: str | None) -> bool:
        """Whether this process loaded an instance explicitly."""
        return reference is not None and self.explicit.get(reference) is not None

    def instance_of(self, info: WireInfo) -> Instance:
        """Return an instance that the server has reported, with what all handles know of it.

        Raises:
            TypeError: If it has no identifier.
        """
        instance = Instance.of(info)
        if instance.reference is not None:
            instance.reasoning = self._reasoning.get_or_make(instance.reference, KnownReasoning)
        return instance

    def record_eviction(self, model_key: str, evicted: WireInfo, *, for_memory: bool = False) -> None:
        """Record that a load of this process evicted an instance; warn once if this process uses that instance, too.

        Args:
            model_key: The model that was loaded.
            evicted: The info of the evicted instance, from the server.
            for_memory: Whether both do not fit into the memory; otherwise Auto-Evict keeps only one.
        """
        reference = reference_of(evicted)
        victim = self._instances.get(reference)
        if victim is None or victim == model_key:
            return
        self._evicted.put(reference, victim)
        self._pairs[frozenset((model_key, victim))] = None
        loading, evicted_key = shortened(model_key), shortened(victim)
        self.warn_once(
            frozenset((model_key, victim)),
            f"loading {loading!r} evicted {evicted_key!r}, which this program uses too: "
            f"{'both do not fit into the memory, so' if for_memory else 'with Auto-Evict,'} each of them costs a load "
            f"whenever the other was used in between; {FIT_BOTH if for_memory else KEEP_LOADED}",
        )

    def warn_once(self, subject: Hashable, text: str, category: type[Warning] = LMStudioEvictionWarning) -> None:
        """Warn about models of this server, once per subject."""
        token = object()
        if self._warned.setdefault(subject, token) is token:
            warn_user(text, category)

    def is_evicted(self, reference: str | None) -> bool:
        """Whether a load of this process evicted an instance."""
        return self._evicted.get(reference) is not None

    def why_unloaded(self, state: ModelState) -> str:
        """Return why a model is no longer loaded, as far as it is known."""
        if state.unloaded_by_user:
            return "this handle unloaded it"
        partners = self._partners(self._key_of(state))
        if partners:
            return f"its loads and those of {', '.join(map(repr, partners))} evict each other; {KEEP_LOADED}"
        return "its TTL expired, or another program unloaded it, or loaded a model that evicted it"

    def _key_of(self, state: ModelState) -> str | None:
        return self._instances.get(state.reference) or self._keys.get((state.kind, state.key))

    def _partners(self, model_key: str | None) -> list[str]:
        """Return the models whose loads evict a model, or that its loads evict."""
        pairs = list(self._pairs)  # in one step: another thread may add one
        return sorted(key for pair in pairs if model_key in pair for key in pair if key != model_key)
