"""Plugins of the catalog: Python functions as tools, and generators, which write messages in place of a model.

A leaf: `leaf_of_catalog` in `catalog.py` is its door. The handlers of plugins run them.
"""

import asyncio
import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import to_jsonable_python

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.threads import run_in_thread
from lmstudio_integrations.emulator.engines.scripted import parse_rules
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.models.catalog import CatalogTable
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.requests import ARTIFACT, kebab_case
from lmstudio_integrations.types.functions import ToolCallContext, ToolFunctionDef, ToolInput, parse_tools


class PluginEntry(CatalogTable):
    """One plugin of the catalog: Python functions, or a generator."""

    identifier: Annotated[
        str,
        Field(
            description="`owner/name`; the MCP server `Weather Report` of LM Studio's `mcp.json` is "
            "`mcp/weather-report`."
        ),
    ]
    functions: Annotated[tuple[Any, ...], Field(description="In Python only: functions as tools.")] = ()
    generator: Annotated[bool, Field(description="With `true`, it responds in place of a model.")] = False
    rules: Annotated[tuple[Any, ...], Field(alias="rule", description="The rules of a generator.")] = ()

    @field_validator("identifier")
    @classmethod
    def _check_identifier(cls, identifier: str) -> str:
        if not re.fullmatch(ARTIFACT, identifier):
            raise LMStudioValueError(
                f"must be owner/name in lower case letters, digits and hyphens, for example "
                f"{kebab_case(identifier) or 'mcp/weather'!r}; got {identifier!r}"
            )
        return identifier

    @field_validator("functions")
    @classmethod
    def _check_functions(cls, functions: tuple[Any, ...]) -> tuple[Any, ...]:
        parse_functions(functions)
        return functions

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: tuple[Any, ...]) -> tuple[Any, ...]:
        parse_rules(rules)
        return rules

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.generator == bool(self.functions) or (self.functions and self.rules):
            found = [name for name in ("functions", "generator", "rules") if getattr(self, name)]
            raise LMStudioValueError(
                f"it needs either functions, or generator = true with rules; it has {' and '.join(found) or 'neither'}"
            )
        return self

    @property
    def kind(self) -> Literal["functions", "generator"]:
        """What it is."""
        return "generator" if self.generator else "functions"


def parse_functions(functions: Iterable[ToolInput]) -> dict[str, ToolFunctionDef]:
    """Return functions by the names of their tools.

    Raises:
        LMStudioValueError: If two have one name, or one cannot be called by a model.
    """
    tools = parse_tools(list(functions))
    for name, tool in tools.items():
        if tool.implementation is None:
            raise LMStudioValueError(f"tool {name!r} has no implementation; a plugin can only call functions")
    return tools


class ReportingContext(ToolCallContext):
    """Reports to the client of a call, from any thread.

    Args:
        name: The name of the tool.
        call_id: The number of the call.
        send: Called on the event loop with each packet, which has no `callId` yet.
    """

    def __init__(self, name: str, call_id: int, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(name, call_id, threading.Event())
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def status(self, text: str) -> None:
        """Send the client what the function is doing."""
        self._report({"type": "toolCallStatus", "statusText": shortened(str(text))})

    def warn(self, text: str) -> None:
        """Send the client a problem that the function has solved by itself."""
        self._report({"type": "toolCallWarn", "warnText": shortened(str(text))})

    def cancel(self) -> None:
        """Tell the function that nobody waits for it any more."""
        self._cancelled.set()

    def _report(self, packet: dict[str, Any]) -> None:
        if threading.get_ident() == self._thread:
            self._send(packet)  # at once, as the next thing that the function does may end the call
            return
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._send, packet)


async def call_function(function: ToolFunctionDef, arguments: Mapping[str, Any], context: ReportingContext) -> Any:
    """Call a function and return its result, as JSON values.

    It runs in a thread of its own, an async one on the server's event loop, where it must not block. Cancelling the
    task aborts the call: it cancels an async function, and is shown to others by their context.

    Raises:
        WireError: If the arguments do not fit, the function raises an exception, or its result is not JSON.
    """
    assert function.implementation is not None, "the entry has checked it"
    try:
        with _as_wire_error():
            # Both take a thread of a pool, as large arguments and results take long.
            checked = await asyncio.to_thread(function.check, arguments)
            checked |= dict.fromkeys(function.context_parameters, context)
            call = partial(function.implementation, **checked)
            # Not of a pool: a function that never returns must not hold up others.
            result = call() if function.is_async else await asyncio.wrap_future(run_in_thread(partial(_run, call)))
            result = await result if inspect.isawaitable(result) else result
            return await asyncio.to_thread(_to_json, result)
    except asyncio.CancelledError:
        context.cancel()
        raise


def _run(call: Callable[[], Any]) -> Any:
    with _as_wire_error():  # in the thread, as no future can hold a StopIteration
        return call()


@contextlib.contextmanager
def _as_wire_error() -> Generator[None]:
    """Raise what a function raises as an error for the client, with its text."""
    try:
        yield
    except (WireError, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # also what no program should raise, such as pytest's outcomes
        raise WireError(shortened(str(error) or repr(error))) from error


def _to_json(result: object) -> Any:
    try:
        return to_jsonable_python(result, inf_nan_mode="null")
    except ValueError as error:
        raise WireError("The result of the tool cannot be written as JSON", cause=shortened(str(error))) from error
