"""Signatures that frameworks ask for at every call: worked out once."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def with_signature(function: FunctionT) -> FunctionT:
    """Return a function that knows its signature, where `inspect` looks for it (PEP 362).

    Both frameworks inspect the method behind a call each time; that takes as long as building the request.
    """
    vars(function)["__signature__"] = inspect.signature(function)
    return function
