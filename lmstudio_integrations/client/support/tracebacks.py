"""Short tracebacks: an error of this package ends at the method that the user called.

The frames below are flows, waiters and sockets, which say nothing to a user. The variable `LMSTUDIO_DEBUG` keeps them.
"""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from lmstudio_integrations._support.environment import DEBUG_VARIABLE
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_PACKAGE = __name__.partition(".")[0]


class short_traceback:  # noqa: N801 - a context manager is named like a function
    """Drop the frames below the block from an error of this package that the block raises, and its cause."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LMStudioError) and not os.environ.get(DEBUG_VARIABLE):
            _shorten(error)


class ShortTracebacks:
    """A base of classes whose public methods raise errors with short tracebacks.

    Iterators use `short_traceback` themselves, because they raise after the method has returned.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and not name.startswith("_"):
                setattr(cls, name, with_short_traceback(member))


def with_short_traceback(function: FunctionT) -> FunctionT:
    """Decorate a function or a coroutine function: errors of this package that it raises have short tracebacks."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return function(*args, **kwargs)

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return await function(*args, **kwargs)

    return acall if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]


def _shorten(error: LMStudioError) -> None:
    here = last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if here is None or last is None or last.tb_frame.f_globals.get("__name__", "").partition(".")[0] != _PACKAGE:
        return  # the user's code raised it, such as a callback, and its frames are what the user looks for
    here.tb_next = None
    if not isinstance(error, LMStudioConnectionLostError):  # the text of any other error says what its cause says
        error.__cause__ = None
