"""How often a model that was unloaded is loaded again for one operation, and after which pauses."""

import random
from collections.abc import Iterator

PAUSES = (0.0, 0.2, 1.0)
"""Mean seconds before each renewal. They vary, so that programs that evict each other's models get out of step."""


def renewal_pauses() -> Iterator[float]:
    """Return the seconds to wait before each renewal of one operation."""
    return (random.uniform(0.5, 1.5) * seconds for seconds in PAUSES)  # noqa: S311 - no secret
