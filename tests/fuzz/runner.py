"""Making the calls, and counting what came of them."""

import asyncio
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random

import lmstudio_integrations as lms
from tests.fuzz.mutating_server import FuzzServer
from tests.fuzz.surfaces import TIMEOUTS, Surface, surfaces, use


@dataclass
class Report:
    """What came of the calls, by surface."""

    calls: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """`returned`, or the class of the error."""
    raw: list[str] = field(default_factory=list[str])
    """The raw exceptions: the call, how to repeat it, and the traceback."""


def fuzz(seed: int, calls: int, *, only: str | None = None, first: int = 0) -> Report:
    """Make calls, the surfaces and their methods in turn. Each call depends on the seed and its own number alone."""
    report = Report()
    with _all_surfaces() as (server, found), warnings.catch_warnings():
        warnings.simplefilter("ignore", lms.LMStudioConfigWarning)
        warnings.simplefilter("ignore", lms.LMStudioEvictionWarning)
        methods = [(name, method) for name, surface in found.items() for method in surface.calls]
        numbers = (number for number in count(first) if only in {None, methods[number % len(methods)][0]})
        for number in islice(numbers, calls):
            name, method = methods[number % len(methods)]
            server.random = Random(f"{seed} {name} {method} {number}")
            _call(report, found[name], name, method, number)
    return report


def _call(report: Report, surface: Surface, name: str, method: str, number: int) -> None:
    report.calls[name] += 1
    try:
        use(surface.calls[method]())
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        report.outcomes[name, type(error).__name__] += 1
        ours = isinstance(error, lms.LMStudioError) and isinstance(error, surface.error)
        if not ours or isinstance(error, lms.LMStudioTimeoutError):
            report.raw.append(f"{name}, {method}, number {number}:\n{''.join(traceback.format_exception(error))}")
    else:
        report.outcomes[name, "returned"] += 1


@contextmanager
def _all_surfaces() -> Iterator[tuple[FuzzServer, dict[str, Surface]]]:
    with ExitStack() as stack:
        server = stack.enter_context(FuzzServer().running())
        client = stack.enter_context(lms.Client(server.address, **TIMEOUTS))
        run = stack.enter_context(asyncio.Runner(loop_factory=asyncio.new_event_loop)).run
        async_client = lms.AsyncClient(server.address, **TIMEOUTS)
        stack.callback(lambda: run(async_client.aclose()))
        yield server, surfaces(server.address, client, async_client, run)
