"""Plans of what fits into memory, and the load policy `fit`, which makes room by them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import Engine
from tests.client.both import make_client

__all__ = ["make_client"]

MakeClient = Callable[..., Any]


def entry(key: str, gib: float, **fields: Any) -> dict[str, Any]:
    """Return a scripted model whose context takes no memory."""
    path = f"maker/{key}-GGUF/{key}.gguf"
    return {"key": key, "path": path, "memory_gib": gib, "kib_per_token": 0, "context_length": 4096, **fields}


@contextmanager
def serving(
    *models: dict[str, Any],
    memory_gib: float | None = 10,
    devices: Sequence[dict[str, Any]] = (),
    engines: Mapping[str, Engine] | None = None,
) -> Iterator[Emulator]:
    """Run a server with a memory for models."""
    catalog: dict[str, Any] = {"model": list(models), "device": list(devices)}
    if memory_gib is not None:
        catalog["memory_gib"] = memory_gib
    with Emulator(catalog=catalog, engines=engines) as server:
        yield server


def loaded(server: Emulator) -> list[tuple[str, str | None]]:
    """Return the identifiers of what is loaded, each with its device."""
    return [(info.identifier, info.device_identifier) for info in server.loaded()]


# What is refused ------------------------------------------------------------------------------------------------------


async def test_a_refusal_counts_whatever_the_model_was_called(make_client: MakeClient) -> None:
    """The device does not say how much memory it has, so only the refusal shows that the model is too large."""
    models, device = [entry("large", 6, estimate_factor=0.2)], {"name": "studio", "memory_gib": 4}
    with serving(*models, devices=[device]) as server:
        async with make_client(server.address) as client:
            with pytest.raises(lms.LMStudioInsufficientResourcesError, match="does not fit"):
                await client.llm.model("maker/large-GGUF/large.gguf", load_policy="fit", device="studio")
            assert len(server.loads) == 1


# Where ----------------------------------------------------------------------------------------------------------------


async def test_the_load_config_is_that_of_the_instance_on_the_same_machine(make_client: MakeClient) -> None:
    with serving(entry("a", 1), devices=[{"name": "studio"}]) as server:
        async with make_client(server.address) as client:
            for device, slots in (("local", 2), ("studio", 7)):
                config = {"max_parallel_predictions": slots}
                await client.llm.model("a", load_policy="explicit", device=device, config=config)
            for device, slots in (("local", 2), ("studio", 7)):
                (model,) = (await client.plan(["a"], device=device)).models
                assert (model.fit, model.slots) == ("loaded", slots)
