"""The tree of errors: as drawn, picklable, with builtins where they belong."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import errors
from tools.leaves import has_leaf

CLASSES: dict[str, type[BaseException]] = {
    name: member
    for name, member in vars(errors).items()
    if inspect.isclass(member) and issubclass(member, BaseException)
}


def _plan() -> object:
    has_plans = has_leaf("planning")
    return lms.MemoryPlan(host="h:1", device=None, capacity_bytes=1, models=()) if has_plans else None


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "LMStudioServerError": {
        "title": "t",
        "root_title": "r",
        "cause": "c",
        "suggestion": "s",
        "display_data": {"code": "x"},
        "error_data": {"a": 1},
    },
    "LMStudioModelUnloadedError": {"retryable": False},
    "LMStudioContextOverflowError": {"used": 9000, "limit": 4096},
    "LMStudioInsufficientResourcesError": {
        "plan": _plan(),
        "retryable": True,
    },
    "LMStudioPluginToolError": {"plugin": "mcp/weather", "tool": "forecast"},
    "LMStudioToolConnectionLostError": {"plugin": "mcp/weather", "tool": "forecast", "retryable": False},
    "LMStudioToolCallError": {"raw_content": "<tool"},
    "LMStudioStructuredOutputError": {"text": "{"},
    "LMStudioUnreachableError": {"tried": ("127.0.0.1:1234: refused",)},
    "LMStudioConnectionLostError": {"retryable": False},
    "LMStudioConfigMismatchError": {"differences": {"contextLength": (8192, 4096)}},
    "LMStudioTimeoutError": {"timeout_name": "idle_timeout", "elapsed": 60.0, "unanswered": True},
    "LMStudioImageDownloadError": {"url": "https://example.com/cat.png"},
}
"""What each class carries, besides what its bases do."""


def drawn() -> dict[str, tuple[str | None, set[str]]]:
    """Return each class of the drawing in the docstring with its parent and its further bases."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str | None, set[str]]] = {}
    path: list[str] = []
    for line in errors.__doc__.split("```")[1].splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)(.*)", line)
        if found:
            indent, name, note = found.groups()
            depth = len(indent) // 4
            also = re.search(r"\((?:also )?(\w+)\)", note)
            path[depth:] = [name]
            tree[name] = (path[depth - 1] if depth else None, {also.group(1)} if also else set())
    return tree


def attributes_of(kind: type[BaseException]) -> dict[str, Any]:
    """Return an example of everything that a class carries."""
    merged: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        merged |= ATTRIBUTES.get(base.__name__, {})
    return merged


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    tree = drawn()
    assert tree.keys() == CLASSES.keys()
    for name, (parent, also) in tree.items():
        bases = {base.__name__ for base in CLASSES[name].__bases__}
        drawn_bases = also | ({parent} if parent else set())
        assert bases == (drawn_bases or {"Exception"}), name


def test_every_attribute_has_an_example() -> None:
    own = {name: inspect.signature(kind.__init__) for name, kind in CLASSES.items() if "__init__" in vars(kind)}
    parameters = {
        name: {each for each, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
        for name, signature in own.items()
    }
    assert {name: set(attributes) for name, attributes in ATTRIBUTES.items()} == {
        name: names for name, names in parameters.items() if names
    }


@pytest.mark.parametrize("name", CLASSES)
def test_every_exception_survives_pickling_with_its_attributes(name: str) -> None:
    kind, attributes = CLASSES[name], attributes_of(CLASSES[name])
    error = kind("what happened", **attributes)
    assert isinstance(error, errors.LMStudioError | UserWarning)
    assert isinstance(kind(), kind), "it needs no argument"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error) == "what happened"
        assert {attribute: getattr(twin, attribute) for attribute in attributes} == attributes
