"""Flows: their form, and several in one, of which all make progress and the first error ends the others."""

import asyncio
import inspect
import types
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, get_args, get_origin

from lmstudio_integrations import client
from lmstudio_integrations.client.concurrency.flows import Step, arun, call_back


def functions() -> Iterator[Callable[..., Any]]:
    """Yield all functions of the client, and the methods of its classes, but for those of protocols."""
    for info in walk_packages(client.__path__, f"{client.__name__}."):
        module = import_module(info.name)
        for found in vars(module).values():
            if getattr(found, "__module__", None) != info.name or getattr(found, "_is_protocol", False):
                continue
            members = vars(found).values() if inspect.isclass(found) else [found]
            yield from (inspect.unwrap(each) for each in members if inspect.isfunction(each))


def returns_flow(function: Callable[..., Any]) -> bool:
    returned = function.__annotations__.get("return")
    return get_origin(returned) is Generator and get_args(returned)[0] is Step


def test_every_function_that_returns_a_flow_is_a_generator_so_that_it_checks_its_arguments_when_it_runs() -> None:
    flows = [function for function in functions() if returns_flow(function)]
    assert len(flows) > 100, "the functions were not found"
    assert [flow.__qualname__ for flow in flows if not inspect.isgeneratorfunction(flow)] == []


async def test_whatever_can_be_awaited_may_be_the_result_of_a_callback() -> None:
    @types.coroutine
    def old_style() -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return "done"

    assert await arun(call_back("on_message", old_style)) == "done"
