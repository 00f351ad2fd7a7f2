"""Plugins of the server: Python functions as tools, and generators, which write messages in place of a model."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import to_jsonable_python

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.threads import run_in_thread
from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel, parse_rules
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.requests import ARTIFACT, kebab_case
from lmstudio_integrations.types.functions import Tool, ToolCallContext, ToolFunctionDef, ToolInput, parse_tools

MAX_QUEUED = 100
"""Texts of a call that wait to be sent. A function that reports faster has to wait."""

_RECHECK_SECONDS = 0.1
"""Seconds after which a function that waits looks whether its call was aborted."""

MAX_THREADS = 256
"""Functions of one plugin that run in threads at once. An aborted one counts until it returns."""


class CatalogTable(BaseModel):
    """A table of the catalog; unknown names are an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, defer_build=True
    )


PluginKind = Literal["functions", "generator"]
"""What a plugin is, by the field that says so."""


class PluginEntry(CatalogTable):
    """One plugin of the catalog: Python functions, or a generator.

    `identifier` is `owner/name`, in lower case letters, digits and hyphens. Exactly one of these fields says what it
    is: `functions` are tools as `act` takes them, and `generator` is whether it writes messages in place of a model.
    `rules` are those of a generator, as scripted models have them.
    """

    identifier: str
    functions: tuple[Any, ...] = ()
    generator: bool = False
    rules: Annotated[tuple[Any, ...], Field(alias="rule")] = ()

    @field_validator("identifier")
    @classmethod
    def _check_identifier(cls, identifier: str) -> str:
        if not ARTIFACT.fullmatch(identifier):
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
        kinds = [kind for kind in get_args(PluginKind) if getattr(self, kind)]
        if len(kinds) != 1:
            names = " and ".join(kinds) or "none of them"
            raise LMStudioValueError(f"it needs exactly one of {', '.join(get_args(PluginKind))}, and has {names}")
        if self.rules and not self.generator:
            raise LMStudioValueError("rules: only a plugin with 'generator' has it, and this one has 'functions'")
        return self

    @property
    def kind(self) -> PluginKind:
        """What it is."""
        return "generator" if self.generator else "functions"


class GeneratorPlugin:
    """A plugin that writes messages.

    Args:
        identifier: Its identifier, `owner/name`.
        rules: Its rules, in the form of the catalog.
    """

    def __init__(self, identifier: str, rules: Sequence[Any]) -> None:
        self.identifier = identifier
        self._engine = ScriptedEngine()
        self._request = LoadRequest(key=identifier, kind="llm", engine_settings={"rules": rules})

    async def start(self) -> ScriptedModel:
        """Return what writes one message. A rule for loads applies to it.

        Raises:
            WireError: If a rule says so.
        """
        return await self._engine.load(self._request, lambda _progress: None)


@dataclass(frozen=True, slots=True)
class CallReports:
    """Where a running call reports to.

    Attributes:
        status: Called with what it is doing.
        warn: Called with a problem that it has solved by itself.
    """

    status: Callable[[str], None]
    warn: Callable[[str], None]


class FunctionPlugin:
    """A plugin of Python functions, as `act` takes them.

    A function runs in a thread, an async one on the server's event loop, where it must not block.

    Args:
        identifier: Its identifier, `owner/name`.
        functions: The functions, or definitions of tools.

    Raises:
        LMStudioValueError: If there are none, two have one name, or one cannot be called by a model.
    """

    def __init__(self, identifier: str, functions: Iterable[ToolInput]) -> None:
        self.identifier = identifier
        self._functions = parse_functions(functions)
        self._threads = threading.BoundedSemaphore(MAX_THREADS)
        self._numbers = count()
        self.tools: tuple[Tool, ...] = tuple(function.to_tool() for function in self._functions.values())

    async def call(self, name: str, arguments: Mapping[str, Any], reports: CallReports) -> Any:
        """Call a function and return its result, as JSON values.

        Cancelling the task aborts the call: it cancels an async function, and is shown to others by their context.

        Raises:
            WireError: If the arguments do not fit, the function raises an exception, or its result is not JSON.
        """
        function, cancelled = self._functions[name], threading.Event()
        context = _ReportingContext(name, next(self._numbers), cancelled, reports)
        try:
            with _as_wire_error():
                # Both take a thread of a pool, as large arguments and results take long.
                checked = await asyncio.to_thread(function.check, arguments)
                result = await self._result(function, checked | dict.fromkeys(function.context_parameters, context))
                return await asyncio.to_thread(_to_json, result)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def _result(self, function: ToolFunctionDef, arguments: dict[str, Any]) -> Any:
        assert function.implementation is not None, "the plugin has checked it"
        call = partial(function.implementation, **arguments)
        result = call() if function.is_async else await self._in_thread(call)
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """Call a function in a thread of its own: one that never returns must not hold up others."""
        if not self._threads.acquire(blocking=False):
            raise WireError(f"{MAX_THREADS} functions of this plugin run already", suggestion="Call it again later.")

        def run() -> Any:
            try:
                with _as_wire_error():  # here, as no future can hold a StopIteration
                    return call()
            finally:
                self._threads.release()

        try:
            running = run_in_thread(run)
        except RuntimeError as error:  # the process may have no more threads
            self._threads.release()
            raise WireError("This server cannot start another thread", cause=str(error)) from error
        return await asyncio.wrap_future(running)


Plugin = FunctionPlugin | GeneratorPlugin
"""A plugin with tools, or one that writes messages."""


def create_plugin(entry: PluginEntry) -> Plugin:
    """Return the plugin of an entry of the catalog."""
    if entry.generator:
        return GeneratorPlugin(entry.identifier, entry.rules)
    return FunctionPlugin(entry.identifier, entry.functions)


def parse_functions(functions: Iterable[ToolInput]) -> dict[str, ToolFunctionDef]:
    """Return functions by the names of their tools.

    Raises:
        LMStudioValueError: If there are none, two have one name, or one cannot be called by a model.
    """
    inputs = list(functions)
    if not inputs:
        raise LMStudioValueError("a plugin needs at least one function")
    tools = parse_tools(inputs)
    for name, tool in tools.items():
        if tool.implementation is None:
            raise LMStudioValueError(f"tool {name!r} has no implementation; a plugin can only call functions")
    return tools


class _ReportingContext(ToolCallContext):
    """Reports to the client of a call, from any thread."""

    def __init__(self, name: str, call_id: int, cancelled: threading.Event, reports: CallReports) -> None:
        super().__init__(name, call_id, cancelled)
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._queue = threading.BoundedSemaphore(MAX_QUEUED)

    def status(self, text: str) -> None:
        """Send the client what the function is doing."""
        self._send(self._reports.status, text)

    def warn(self, text: str) -> None:
        """Send the client a problem that the function has solved by itself."""
        self._send(self._reports.warn, text)

    def _send(self, report: Callable[[str], None], text: str) -> None:
        text = shortened(str(text))
        if threading.get_ident() == self._thread:
            report(text)
            return
        while not self.cancelled:
            if self._queue.acquire(timeout=_RECHECK_SECONDS):
                with contextlib.suppress(RuntimeError):  # the server has stopped
                    self._loop.call_soon_threadsafe(self._deliver, report, text)
                return

    def _deliver(self, report: Callable[[str], None], text: str) -> None:
        self._queue.release()
        report(text)


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
