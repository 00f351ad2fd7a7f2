"""The efforts of reasoning that models allow, which a server lists over HTTP only (docs/protocol.md#efforts).

`EffortCheck` compares them with what is sent, and `lmsi ls` shows them. A server that does not list them,
or cannot be reached over HTTP, is no error.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import from_json

from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.transport.connect.addresses import Target
from lmstudio_integrations.client.transport.connect.opening import find_server
from lmstudio_integrations.client.transport.connect.probe import Finding, get
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import LMStudioError

_PATH = "api/v1/models"

_MAX_RECORDED = 256
"""Names of models that are recorded at most, of each server."""


class AllowedEfforts(NamedTuple):
    """The efforts that a model allows.

    Attributes:
        allowed_options: Their names on the server: `off`, `on`, and levels. Empty if they are not known.
        default: Which of them applies by default, if the server says it.
    """

    allowed_options: tuple[str, ...] = ()
    default: str | None = None


_UNKNOWN = AllowedEfforts()


class _Recorded(BoundedCache[str, AllowedEfforts]):
    """What a server has listed, by the names of models."""

    def __init__(self) -> None:
        super().__init__(_MAX_RECORDED)


def efforts_of(operation: Operation, *names: str) -> Flow[AllowedEfforts]:
    """Return the efforts that a model allows; the server is asked once for each model.

    Args:
        operation: Asks it.
        names: What the model is called, best name first: its key, the identifier of an instance.
    """
    recorded = operation.context.shared(_Recorded)
    found = recorded.get(names[0])
    if found is None:
        recorded.put(names[0], _UNKNOWN)  # at once: other calls need not wait for it
        try:
            listed = yield from list_efforts(operation)
        except BaseException:  # the call was stopped; the next one asks again
            recorded.pop(names[0])
            raise
        for name, efforts in listed.items():
            recorded.put(name, efforts)
        found = recorded.put(names[0], next((listed[name] for name in names if name in listed), _UNKNOWN))
    return found


def list_efforts(operation: Operation) -> Flow[Mapping[str, AllowedEfforts]]:
    """Return the efforts that the models of a server allow, by their keys, and by those of variants and instances.

    Models without any are absent.
    """
    context = operation.context
    return (yield from context.run_task(partial(_list, context.target, operation.remaining_time)))


async def _list(target: Target, remaining: float | None) -> Mapping[str, AllowedEfforts]:
    with suppress(LMStudioError, TimeoutError):
        async with asyncio.timeout(remaining):
            listed = await get(await find_server(target), _PATH, read_list)
            return {} if isinstance(listed, Finding) else listed
    return {}


def read_list(body: bytes) -> Mapping[str, AllowedEfforts] | None:
    """Return what a complete list says; `None` if this is none."""
    try:
        page: Any = from_json(body)
    except ValueError:
        return None
    models = page.get("models") if is_object(page) else None
    if not is_list(models):
        return None
    listed: dict[str, AllowedEfforts] = {}
    for model in filter(is_object, models):
        efforts = _efforts_in(model)
        if efforts.allowed_options:
            instances = filter(is_object, _items(model.get("loaded_instances")))
            names = [model.get("key"), *_items(model.get("variants")), *(each.get("id") for each in instances)]
            listed |= dict.fromkeys((name for name in names if isinstance(name, str)), efforts)
    return listed


def _efforts_in(model: Mapping[str, Any]) -> AllowedEfforts:
    abilities = model.get("capabilities")
    reasoning = abilities.get("reasoning") if is_object(abilities) else None
    if not is_object(reasoning):
        return _UNKNOWN
    default = reasoning.get("default")
    options = [each for each in _items(reasoning.get("allowed_options")) if isinstance(each, str)]
    return AllowedEfforts(tuple(options), default if isinstance(default, str) else None)


def _items(value: object) -> list[Any]:
    return value if is_list(value) else []
