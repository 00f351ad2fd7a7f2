"""The guard of `act`: the program allows or denies a tool call before the tool runs."""

from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioRuntimeError, LMStudioValueError
from lmstudio_integrations.types.functions import ToolFunctionDef
from lmstudio_integrations.types.tools import ToolCallRequest

_DENIED = "The tool call was denied."


class GuardToolCallController:
    """What `guard_tool_call` decides with: it calls one of the methods, once.

    Attributes:
        tool_call_request: The call, with valid arguments.
        tool: The tool.
    """

    def __init__(self, tool_call_request: ToolCallRequest, tool: ToolFunctionDef) -> None:
        self.tool_call_request = tool_call_request
        self.tool = tool
        self._decision: str | None = None
        self._parameters: Mapping[str, Any] | None = None
        self._reason: str | None = None

    def allow(self) -> None:
        """Run the tool.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
        """
        self._decide("allow")

    def allow_and_override_parameters(self, new_parameters: Mapping[str, Any]) -> None:
        """Run the tool with other arguments. The conversation shows them as if the model had written them.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
            LMStudioValueError: If they are no dict, or do not fit.
        """
        if not is_mapping(new_parameters):
            raise LMStudioValueError(f"new_parameters must be a dict of arguments; got {new_parameters!r}")
        self.tool.check(new_parameters)
        self._decide("allow_and_override_parameters")
        self._parameters = new_parameters

    def deny(self, reason: str | None = None) -> None:
        """Do not run the tool; the model gets the reason. To end `act`, raise an exception instead.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
        """
        self._decide("deny")
        self._reason = reason or _DENIED

    def _decide(self, decision: str) -> None:
        if self._decision is not None:
            raise LMStudioRuntimeError(f"guard_tool_call: {decision}() after {self._decision}(); decide a call once")
        self._decision = decision

    def decision(self) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return other arguments, and the reason why the tool must not run; each `None` if there is none.

        Raises:
            LMStudioRuntimeError: If the guard has not decided.
        """
        if self._decision is None:
            raise LMStudioRuntimeError(
                f"guard_tool_call has not decided the call of {self.tool.name!r}; call allow(), "
                "allow_and_override_parameters() or deny() of the controller"
            )
        return self._parameters, self._reason
