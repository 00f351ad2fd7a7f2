"""Log-probabilities of tokens, as servers send them (docs/protocol.md#fragments)."""

import math
from collections.abc import Mapping
from typing import Any


def probability_of(token: Mapping[str, Any]) -> float | None:
    """Return the probability of a token; `None` if it is not known. The server writes the logarithm of 0 as null."""
    if "logProb" not in token:
        return None
    logarithm = token["logProb"]
    return 0.0 if logarithm is None else math.exp(min(logarithm, 0.0))
