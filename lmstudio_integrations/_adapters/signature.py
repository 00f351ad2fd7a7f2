"""Caches the signatures that the frameworks inspect at every call."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def with_signature(function: FunctionT) -> FunctionT:
    """Return the function with its signature stored where `inspect` finds it (PEP 362).

    Both frameworks inspect the method of a call each time, which takes as long as building the request.
    """
    vars(function)["__signature__"] = inspect.signature(function)
    return function
