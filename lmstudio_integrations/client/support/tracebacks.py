"""Short tracebacks: an exception of a call shows the code of others, and at most one frame of this package.

Our frames are flows, mailboxes and sockets, which say nothing to a user; those of the libraries that we call are ours
as well. Frames of others stay, such as those of a callback, and so does a cause that has some. What fails within this
package and is none of its errors keeps all. The variable `LMSTUDIO_DEBUG` keeps all of every exception.
"""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from lmstudio_integrations._support.environment import DEBUG_VARIABLE
from lmstudio_integrations.errors import LMStudioConnectionLostError, LMStudioError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_PACKAGE = __name__.partition(".")[0]

_LIBRARIES = {*sys.stdlib_module_names, "jsonschema", "pydantic", "referencing", "websockets"}
"""Their frames belong to whoever called them."""

_SHORTENED = (LMStudioError, KeyboardInterrupt, asyncio.CancelledError)
"""What may be raised in this package without a defect of it."""


class short_traceback(AbstractContextManager[object, None]):  # noqa: N801 - a context manager is named like a function
    """Leave out our frames below the block, and our causes, of what the block raises."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not os.environ.get(DEBUG_VARIABLE):
            _shorten(error)


class ShortTracebacks:
    """A base of classes whose public methods raise exceptions with short tracebacks.

    Iterators use `short_traceback` themselves, because they raise after the method has returned.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.partition(".")[0] != _PACKAGE:  # the frames of the user's methods are not ours to drop
            return
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and not name.startswith("_") and not inspect.isgeneratorfunction(member):
                setattr(cls, name, with_short_traceback(member))


def with_short_traceback(function: FunctionT) -> FunctionT:
    """Decorate a function or a coroutine function: what it raises has a short traceback."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return function(*args, **kwargs)

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        with short_traceback():
            return await function(*args, **kwargs)

    return acall if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]


def _shorten(error: BaseException) -> None:
    """Drop our frames below the first one, and our causes, unless the code of others has raised the error."""
    frames, raised_here = _frames(error), _raised_here(error)
    if raised_here and not isinstance(error, _SHORTENED):
        return
    _keep(error, [frame for index, (frame, is_ours) in enumerate(frames) if index == 0 or not is_ours])
    # The text of an error has what its cause says; that of a lost connection does not.
    if raised_here and not isinstance(error, LMStudioConnectionLostError):
        _drop_our_causes(error)
    for before, _ in _before(error, {id(error)}):
        if others := _frames_of_others(before):
            _keep(before, others)


def _drop_our_causes(error: BaseException) -> None:
    """Link an exception with the nearest one before it that has frames of others. Of ours, only programs know."""
    for before, is_cause in _before(error, {id(error)}):
        if _frames_of_others(before):
            error.__cause__ = before if is_cause else None
            error.__context__, error.__suppress_context__ = before, is_cause
            return
    error.__context__ = error.__cause__ or error.__context__
    error.__cause__ = None  # the context is not printed then


def _before(error: BaseException, seen: set[int]) -> Iterator[tuple[BaseException, bool]]:
    """Yield the exceptions that led to one, each with whether it is the cause and not only the context."""
    cause, context = error.__cause__, error.__context__
    # A cause hides the context. It is shown where we hide the cause, and where we have hidden our own by `from None`.
    hidden = context is None or (error.__suppress_context__ and cause is None and not _raised_here(error))
    for before, is_cause in ((cause, True), (None if hidden else context, False)):
        if before is not None and id(before) not in seen:
            seen.add(id(before))
            yield before, is_cause
            yield from ((each, is_cause and its_cause) for each, its_cause in _before(before, seen))


def _frames(error: BaseException) -> list[tuple[TracebackType, bool]]:
    """Return the frames of an exception's traceback, each with whether it is ours."""
    frames: list[tuple[TracebackType, bool]] = []
    trace, is_ours = error.__traceback__, False
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        is_ours = package == _PACKAGE or (is_ours and package in _LIBRARIES)
        frames.append((trace, is_ours))
        trace = trace.tb_next
    return frames


def _raised_here(error: BaseException) -> bool:
    frames = _frames(error)
    return bool(frames) and frames[-1][1]


def _frames_of_others(error: BaseException) -> list[TracebackType]:
    return [frame for frame, is_ours in _frames(error) if not is_ours]


def _keep(error: BaseException, frames: list[TracebackType]) -> None:
    """Leave an exception only these frames of its traceback."""
    for frame, following in zip(frames, [*frames[1:], None], strict=False):
        frame.tb_next = following
    error.__traceback__ = frames[0] if frames else None
