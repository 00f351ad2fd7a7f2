"""How long a call waits, in virtual time: `timeout` limits a silence, and `total_timeout` the whole call."""

import asyncio
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioTimeoutError
from tests._adapters.hosts.servers import chat_model, key_of
from tests.support.adapters import LANGUAGE_MODELS, Adapter
from tests.support.virtual_time import freeze, in_virtual_time, serving

SILENCE = 6.0
SLOW = [{"text": "word "}, {"wait": 0.8 * SILENCE}] * 5
RULES: list[dict[str, Any]] = [
    {"when": {"last": "stall"}, "then": [{"text": "word "}, {"fault": "stall"}]},
    {"when": {"last": "think"}, "then": [{"wait": 3 * SILENCE}, {"text": "late"}]},
    {"then": SLOW},
]
"""A prompt that is processed for long, and a response that arrives for longer, or stops arriving."""

adapters = pytest.mark.parametrize("adapter", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)


@pytest.mark.parametrize("place", ["constructor", "call"])
@pytest.mark.parametrize("name", ["timeout", "request_timeout"])
@adapters
@in_virtual_time
async def test_a_timeout_cuts_no_response_that_is_still_arriving(adapter: Adapter, name: str, place: str) -> None:
    async with serving(Emulator([chat_model(load_seconds=6 * SILENCE, rules=RULES)])) as host:
        fields, given = ({name: SILENCE}, {}) if place == "constructor" else ({}, {name: SILENCE})
        async with adapter.make(model=key_of(adapter), host=host, **fields) as model:
            response = await adapter.acall(model, "Hello", **given)
            assert "word word word word word" in str(response)
            with pytest.raises(LMStudioTimeoutError) as caught:
                await adapter.acall(model, "stall", **given)
            assert caught.value.timeout_name == "idle_timeout"
            assert caught.value.elapsed == pytest.approx(SILENCE, abs=1)
            with pytest.raises(LMStudioTimeoutError) as caught:
                await adapter.acall(model, "Hello", timeouts={"total_timeout": 3 * SILENCE}, **given)
            assert caught.value.timeout_name == "total_timeout"


PHASES = {
    "connect_timeout": "frozen",
    "load_timeout": "frozen while it loads",
    "queue_timeout": "queued",
    "first_token_timeout": "think",
}
"""How a server is silent in each phase before the response."""


@pytest.mark.parametrize("of_its_own", [False, True])
@pytest.mark.parametrize("phase", PHASES)
@adapters
@in_virtual_time
async def test_a_timeout_is_the_longest_silence_in_each_phase_without_a_number_of_its_own(
    adapter: Adapter, phase: str, of_its_own: bool
) -> None:
    state, limits = PHASES[phase], {phase: 9 * SILENCE} if of_its_own else None
    is_loaded = phase != "load_timeout"
    entry = chat_model(rules=RULES, slots=1, preload=is_loaded, load_seconds=None if is_loaded else SILENCE)
    async with (
        serving(Emulator([entry])) as host,
        adapter.make(model=key_of(adapter), host=host) as other,
        adapter.make(model=key_of(adapter), host=host, timeout=SILENCE, timeouts=limits) as model,
        asyncio.TaskGroup() as tasks,
    ):
        if state == "queued":
            tasks.create_task(adapter.acall(other, "think"))
        asyncio.get_running_loop().call_later(1 + (not is_loaded), freeze, host, 1.5 * SILENCE * ("frozen" in state))
        await asyncio.sleep(1)
        call = adapter.acall(model, state)
        if of_its_own:
            await call
            return
        with pytest.raises(LMStudioTimeoutError) as caught:
            await call
        assert caught.value.timeout_name == phase
        assert caught.value.elapsed == pytest.approx(SILENCE, abs=1)
