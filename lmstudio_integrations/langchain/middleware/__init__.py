"""Middleware for agents of `langchain`: what LangChain users put around a model, ready made.

Needs the package `langchain`. The classes work with any chat model; `ToolSearchMiddleware` asks one of LM Studio to
mend calls that do not fit.
"""

from typing import Any

from lmstudio_integrations._support.installation import public_name

_MODULES = {
    "InvalidToolCallMiddleware": "invalid_tool_calls",
    "RepeatedToolCallMiddleware": "repeated_tool_calls",
    "ToolSearchMiddleware": "tool_search",
}
"""The module of each public name. Type checkers read `__init__.pyi`, which `python -m tools.stub` writes from it."""

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] - others read the stub


def __getattr__(name: str) -> Any:
    return public_name(__name__, _MODULES, name, framework="langchain", distribution="langchain")


def __dir__() -> list[str]:
    return __all__
