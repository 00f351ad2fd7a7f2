"""What the scripted server sends: the name of the model determines the response, the same over every protocol.

`burst-1000` is a thousand tokens, as fast as they can be read; `paced-200` two hundred, one every 5 ms; `json-1000` a
JSON object; `vector` embeds. Both ends of a benchmark know this module, so that programs can check what they got.
"""

from dataclasses import dataclass
from functools import lru_cache

PACE = 0.005
"""Seconds between two tokens of a paced response: 200 tokens a second."""

DIMENSIONS = 768

_WORDS = (" the", " sky", " is", " blue", " because", " short", " waves", " scatter")


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a model.

    Attributes:
        tokens: The tokens.
        gap: Seconds between two tokens.
    """

    tokens: tuple[str, ...]
    gap: float


@lru_cache(maxsize=32)
def response_of(model: str) -> Response:
    """Return the response of a model."""
    kind, _, length = model.partition("-")
    count = int(length or 1)
    tokens = _json_tokens(count) if kind == "json" else tuple(_WORDS[i % len(_WORDS)] for i in range(count))
    return Response(tokens, PACE if kind == "paced" else 0.0)


def _json_tokens(count: int) -> tuple[str, ...]:
    """Return an object of one list of strings, in so many tokens."""
    chunks = (_WORDS[i % len(_WORDS)] + ('","' if i % 10 == 9 else "") for i in range(count - 2))
    return '{"lines":["', *chunks, '"]}'


@lru_cache(maxsize=1)
def vector() -> tuple[float, ...]:
    """Return the vector of every text, with eight decimals, as where the targets were set."""
    return tuple(round(((i * 2654435761) % (1 << 32) / (1 << 31) - 1) / 27.7, 8) for i in range(DIMENSIONS))
