"""What the scripted server says: the name of the model says what its answer is, the same over every protocol.

`burst-1000` is a thousand tokens, as fast as they can be read; `paced-200` two hundred, one every 5 ms; `json-1000` a
JSON object; `vector` embeds. Both ends of a benchmark know this module, so that programs can check what they got.
"""

from dataclasses import dataclass
from functools import lru_cache

PACE = 0.005
"""Seconds between two tokens of a paced answer: 200 tokens a second."""

DIMENSIONS = 768

_WORDS = (" the", " sky", " is", " blue", " because", " short", " waves", " scatter")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answers.

    Attributes:
        tokens: The pieces.
        gap: Seconds between them.
    """

    tokens: tuple[str, ...]
    gap: float


@lru_cache(maxsize=32)
def answer_of(model: str) -> Answer:
    """Return what a model answers."""
    kind, _, length = model.partition("-")
    count = int(length or 1)
    tokens = _json_tokens(count) if kind == "json" else tuple(_WORDS[i % len(_WORDS)] for i in range(count))
    return Answer(tokens, PACE if kind == "paced" else 0.0)


def _json_tokens(count: int) -> tuple[str, ...]:
    """Return an object of one list of texts, in so many pieces."""
    pieces = (_WORDS[i % len(_WORDS)] + ('","' if i % 10 == 9 else "") for i in range(count - 2))
    return '{"lines":["', *pieces, '"]}'


@lru_cache(maxsize=1)
def vector() -> tuple[float, ...]:
    """Return the vector of every text, with eight decimals, as where the targets were set."""
    return tuple(round(((i * 2654435761) % (1 << 32) / (1 << 31) - 1) / 27.7, 8) for i in range(DIMENSIONS))
