"""Middleware for agents of `langchain`: what LangChain users put around a model, ready made.

Needs the package `langchain`. The classes work with any chat model; `ToolSearchMiddleware` asks one of LM Studio to
mend calls that do not fit.
"""

from typing import TYPE_CHECKING, Any

from lmstudio_integrations._support.installation import public_name

if TYPE_CHECKING:
    from lmstudio_integrations.langchain.middleware.invalid_tool_calls import (
        InvalidToolCallMiddleware as InvalidToolCallMiddleware,
    )
    from lmstudio_integrations.langchain.middleware.repeated_tool_calls import (
        RepeatedToolCallMiddleware as RepeatedToolCallMiddleware,
    )
    from lmstudio_integrations.langchain.middleware.tool_search import ToolSearchMiddleware as ToolSearchMiddleware

__all__ = ["InvalidToolCallMiddleware", "RepeatedToolCallMiddleware", "ToolSearchMiddleware"]

_MODULES = {
    "InvalidToolCallMiddleware": "invalid_tool_calls",
    "RepeatedToolCallMiddleware": "repeated_tool_calls",
    "ToolSearchMiddleware": "tool_search",
}


def __getattr__(name: str) -> Any:
    return public_name(__name__, _MODULES, name, framework="langchain", distribution="langchain")


def __dir__() -> list[str]:
    return __all__
