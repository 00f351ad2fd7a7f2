"""The errors of tools that end the run of an agent.

After a timeout or a lost connection nobody knows what a tool has done. But LlamaIndex's agents turn the exceptions of
tools into text for the model, which would call the tool again. They let only those pass by which a step waits for an
event. For these, the workflow adds what they hold to the results of the step: here, that the step has failed.
"""

import time
from contextlib import AbstractContextManager
from typing import Any

from workflows.runtime.types.results import (  # pyright: ignore[reportMissingTypeStubs] - it is typed
    StepWorkerFailed,
    WaitingForEvent,
)

from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioTimeoutError,
    LMStudioToolConnectionLostError,
)


class _EndsTheRun(WaitingForEvent[Any]):
    """Passes through an agent, and fails the step of a workflow."""

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)

    @property
    def add(self) -> Any:  # type: ignore[override]  # a workflow adds it to the results of the step
        """What the workflow would add for any other exception."""
        return StepWorkerFailed(exception=self, failed_at=time.time())


class LlamaIndexToolConnectionLostError(LMStudioToolConnectionLostError, _EndsTheRun):
    """The connection was lost while a tool ran."""


class LlamaIndexToolTimeoutError(LMStudioTimeoutError, _EndsTheRun):
    """A tool took too long."""


class LlamaIndexToolCancelledError(LMStudioCancelledError, _EndsTheRun):
    """The session was closed while a tool ran."""


def as_error_of_agent(error: LMStudioError) -> LMStudioError:
    """Make an error end the run of an agent, in place, if nobody knows what the tool has done."""
    if isinstance(error, LMStudioToolConnectionLostError):
        error.__class__ = LlamaIndexToolConnectionLostError
    elif isinstance(error, LMStudioTimeoutError):
        error.__class__ = LlamaIndexToolTimeoutError
    elif isinstance(error, LMStudioCancelledError):
        error.__class__ = LlamaIndexToolCancelledError
    return error


class ending_the_run(AbstractContextManager[object, None]):  # noqa: N801 - a context manager is named like a function
    """Make such errors of the block end the run of an agent."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LMStudioError):
            as_error_of_agent(error)
