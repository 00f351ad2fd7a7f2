# Written by `python -m tools.stub` from the table in __init__.py.

from lmstudio_integrations.langchain.middleware.invalid_tool_calls import InvalidToolCallMiddleware as InvalidToolCallMiddleware
from lmstudio_integrations.langchain.middleware.repeated_tool_calls import RepeatedToolCallMiddleware as RepeatedToolCallMiddleware
from lmstudio_integrations.langchain.middleware.tool_search import ToolSearchMiddleware as ToolSearchMiddleware
