"""What this process has seen of the memory of a server: which loads were refused, and what was evicted.

`planning.py` and `fitting.py` write it; `hosts/` reports what was evicted.
"""

from collections import deque

from lmstudio_integrations.client.models.state import LoadObservers, WireInfo
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.types.memory_plans import Eviction

_MOST_EVICTIONS = 256
"""Evictions that are remembered at most, of each server."""


class SeenMemory:
    """What this process has seen of the memory of one server's machines. Any thread may change it, in one step.

    Attributes:
        evictions: What the policy `fit` has evicted, the newest last.
    """

    def __init__(self) -> None:
        self.evictions: deque[Eviction] = deque(maxlen=_MOST_EVICTIONS)
        self._refused: dict[tuple[str | None, str], dict[int | None, int]] = {}

    @classmethod
    def of(cls, context: ClientContext) -> "SeenMemory":
        """Return that of a server, however it was named; there is one, new after a fork."""
        seen = context.shared(cls, context.server)
        context.shared(LoadObservers, context.server).setdefault(cls, seen.record)
        return seen

    def record(self, info: WireInfo) -> None:
        """Record the info of a model that was loaded."""
        self.record_load(info.get("deviceIdentifier"), str(info.get("modelKey")))

    def record_load(self, device: str | None, model_key: str) -> None:
        """Record that a model was loaded, so it may be again."""
        self._refused.pop((device, model_key), None)

    def record_refusal(self, device: str | None, model_key: str, context_length: int | None, beside: int) -> None:
        """Record that a model was refused beside so many bytes."""
        refused = self._refused.setdefault((device, model_key), {})
        refused[context_length] = min(beside, refused.get(context_length, beside))

    def refused_beside(self, device: str | None, model_key: str, context_length: int | None) -> int | None:
        """Return beside how many bytes a model was refused, with this context length or a shorter one."""
        refused = self._refused.get((device, model_key), {})
        return min(
            (
                beside
                for length, beside in refused.copy().items()
                if length == context_length or (length and context_length and length < context_length)
            ),
            default=None,
        )
