"""Expensive requests of an authenticated client: they end with a response or an error, and never block others."""

import resource
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.scripted import schema
from tests.emulator.bare_client import prediction_request, wire

MAX_GROWTH = 1 << 30
"""Bytes by which the whole test process, server and attacker, may grow."""

RULES = ({"when": {"last": "(a+)+$"}, "then": [{"text": "never"}]},)


def nested(levels: int, items: int) -> dict[str, Any]:
    """A schema whose smallest instance has `items ** levels` parts."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "minItems": items}
    return schema


def doubled(levels: int) -> dict[str, Any]:
    """A schema in which every level refers twice to the next."""
    twice = {
        f"a{level}": {
            "properties": {name: {"$ref": f"#/$defs/a{level + 1}"} for name in "xy"},
            "required": ["x", "y"],
        }
        for level in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**twice, f"a{levels}": {"type": "null"}}}


def deep(levels: int) -> dict[str, Any]:
    """A schema with objects in each other."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}, "required": ["a"]}
    return schema


SCHEMAS: dict[str, tuple[Any, str]] = {
    "a pattern that backtracks": ({"type": "string", "pattern": "^(a+)+$b"}, "needs a 'default' or 'examples'"),
    "many repeats side by side": ({"type": "string", "pattern": "a{9999}" * 100}, "not a valid one"),
    "references that double": (doubled(20), "more than 10000 parts"),
    "a long chain of references": (
        {"$ref": "#/$defs/a0", "$defs": {f"a{at}": {"$ref": f"#/$defs/a{at + 1}"} for at in range(5000)}},
        "60 levels",
    ),
    "arrays of arrays": (nested(10, 1000), "more than 10000 parts"),
    "objects in objects": (deep(70), "60 levels"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator([ModelEntry(key="chat", rules=RULES)], load=["chat"]) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    before = peak()
    yield
    assert peak() - before < MAX_GROWTH


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def attack(server: Emulator, parameter: dict[str, Any]) -> dict[str, Any]:
    """Return the end of a prediction; while it is served, another client is."""
    with wire(server) as attacker, wire(server, client="guest:other") as other:
        channel = attacker.open("predict", parameter)
        assert other.stream("predict", prediction_request("chat", "Hello"))[-1]["type"] == "success"
        return list(attacker.packets(channel))[-1]


def test_a_message_cannot_make_a_rule_search_for_ever(server: Emulator) -> None:
    end = attack(server, prediction_request("chat", "a" * 50_000 + "!"))
    assert end["stats"]["stopReason"] == "eosFound"


@pytest.mark.parametrize(("given", "bound"), SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_cannot_grow_without_end(given: Any, bound: str) -> None:
    with pytest.raises(EngineError, match=bound):
        schema.instance_of(given)


def test_the_parameters_of_a_tool_are_bounded_as_well(server: Emulator) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": doubled(20)}}
    fields = {"tools": {"type": "toolArray", "tools": [tool], "force": True}}
    end = attack(server, prediction_request("chat", fields=fields))
    assert "more than 10000 parts" in end["error"]["title"]
