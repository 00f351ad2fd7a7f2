"""Valid JSON values made invalid: wrong types, missing members, huge numbers, nested junk, lone surrogates."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from lmstudio_integrations._support.typeguards import is_list, is_object

Place = tuple[Any, Any]
"""A container, and the key or index of one of its values."""


JUNK: tuple[str, ...] = (
    *map(json.dumps, (None, True, False, 0, 1, -1, 3.5, "", "3", "text", [], [None], [[]], {}, {"": {}}, {"a": [1]})),
    *map(json.dumps, (10**30, 10**400, -(10**400), 1e308, float("nan"), float("inf"), float("-inf"))),
    *map(json.dumps, ("\ud800", "a\udc00b", "\x00", "[" * 2_000, "9" * 5_000, "model " * 2_000)),
    *map(json.dumps, ([{"key": 5}], [{"text": 5, "candidates": 5}], {"fields": {}})),
    *("[" * levels + "]" * levels for levels in (50, 150, 300)),
)
"""Values as JSON text, so that each use has one of its own."""


def mutated(value: Any, random: Random, most: int = 3) -> Any:
    """Return a copy of a JSON value with up to `most` of its parts changed."""
    holder = [copy.deepcopy(value)]
    for _ in range(random.randint(0, most)):
        container, key = random.choice(_places(holder))
        random.choice(_CHANGES)(container, key, random)
        holder = holder or [None]
    return holder[0]


def _places(value: Any) -> list[Place]:
    """Return the place of each value within a value, but for those in what is nested very deep."""
    found: list[Place] = []
    pending = [value]
    while pending and len(found) < 500:
        container = pending.pop()
        keys = range(len(container)) if is_list(container) else list(container)
        found += [(container, key) for key in keys]
        pending += [container[key] for key in keys if container[key] and isinstance(container[key], dict | list)]
    return found


def _junk(random: Random) -> Any:
    return json.loads(random.choice(JUNK))


def _replace(container: Any, key: Any, random: Random) -> None:
    container[key] = _junk(random)


def _remove(container: Any, key: Any, random: Random) -> None:
    del container[key]


def _add(container: Any, key: Any, random: Random) -> None:
    value = container[key]
    if is_object(value):
        value[random.choice(("type", "key", "a", "\ud800"))] = _junk(random)
    elif is_list(value):
        value.append(_junk(random))
    else:
        container[key] = [value]


def _wrap(container: Any, key: Any, random: Random) -> None:
    container[key] = random.choice(([container[key]], {"value": container[key]}, str(container[key])[:100]))


def _repeat(container: Any, key: Any, random: Random) -> None:
    if isinstance(container[key], list | str):
        container[key] = container[key] * random.choice((2, 20))


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (_replace, _replace, _replace, _remove, _add, _wrap, _repeat)
