"""Made-up log-probabilities of a scripted model.

They follow from the tokens alone, so that two runs agree, and their probabilities add up to at most 1.
"""

import math
from typing import Any

from lmstudio_integrations.emulator.engines.scripted import words

_OTHERS = tuple(words.split(" the a of and to in is it that not"))


def logprobs_of(token: str, candidates: int) -> dict[str, Any]:
    """Return an entry of `fragment.tokens` (docs/protocol.md#fragments).

    Args:
        token: Its text.
        candidates: How many of the most probable tokens to list, the written one first. There are eleven.
    """
    number = words.token_id(token)
    probability = 0.5 + number % 499 / 1000
    written: dict[str, Any] = {"text": token, "id": number, "logProb": math.log(probability)}
    if not candidates:
        return written
    others = [other for other in _OTHERS if other != token][: candidates - 1]
    rest = [
        {"text": other, "id": words.token_id(other), "logProb": math.log((1 - probability) / 2**rank)}
        for rank, other in enumerate(others, 1)
    ]
    return {**written, "candidates": [written, *rest]}
