"""What the parts of a client have in common, such as `client.files` and `client.plugins`."""

from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.operation import Operation


class BaseNamespace:
    """A part of a client: `client.llm`, `client.files` and others."""

    def __init__(self, context: ClientContext) -> None:
        self._context = context

    def _operation(self) -> Operation:
        return Operation(self._context)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._context.target}>"
