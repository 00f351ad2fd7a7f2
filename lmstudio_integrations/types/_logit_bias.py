"""The type of the setting `logit_bias`: biases by token, which JSON and the wire hold as pairs.

JSON has no numbers as keys and no infinity, so a dict would come back with other keys and without its values.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

from pydantic import AllowInfNan, BeforeValidator, PlainSerializer

from lmstudio_integrations._support.typeguards import is_count, is_list, is_mapping, is_number

FORBIDDEN = "-inf"
"""How the wire writes negative infinity: the token is never generated."""


def to_pairs(bias: Mapping[int | str, float]) -> list[Any]:
    """Return biases as the pairs of the wire (docs/protocol.md#value-encodings)."""
    return [[token, FORBIDDEN if number == -math.inf else number] for token, number in bias.items()]


def _from_pairs(value: object) -> object:
    """Return biases as a dict, from a dict or from pairs.

    Raises:
        ValueError: If a token is neither an id nor a text, or a bias is no number.
    """
    if not (is_mapping(value) or is_list(value)):
        return value
    pairs: Iterable[object] = value.items() if is_mapping(value) else value
    by_token: dict[int | str, float] = {}
    for pair in pairs:
        members = cast("tuple[object, ...]", pair) if isinstance(pair, tuple | list) else ()
        if len(members) != 2:
            raise ValueError("must be a dict of biases by token")
        token, bias = members
        if not (isinstance(token, str) or is_count(token)):
            raise ValueError(f"{token!r} is no token; name it by its id, or by its text")
        number = -math.inf if bias == FORBIDDEN else bias
        if not (is_number(number) or number == -math.inf):
            raise ValueError(f"the bias of {token!r} must be a number, or float('-inf') to forbid it")
        by_token[token] = cast("float", number)
    return by_token


LogitBias = Annotated[
    dict[int | str, Annotated[float, AllowInfNan(allow_inf_nan=True)]],
    BeforeValidator(_from_pairs),
    PlainSerializer(to_pairs, return_type=list[Any]),
]
