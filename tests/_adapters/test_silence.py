"""How long a call waits, in virtual time: `timeout` limits a silence, and `total_timeout` the whole call."""

from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioTimeoutError
from tests._adapters.hosts.servers import chat_model, key_of
from tests.support.adapters import LANGUAGE_MODELS, Adapter
from tests.support.virtual_time import in_virtual_time, serving

SILENCE = 10.0
SLOW = [{"text": "word "}, {"wait": 0.8 * SILENCE}] * 5
RULES: list[dict[str, Any]] = [
    {"when": {"last": "stall"}, "then": [{"text": "word "}, {"fault": "stall"}]},
    {"then": [{"wait": 3 * SILENCE}, *SLOW]},
]
"""A prompt that is processed for long, and a response that arrives for longer, or stops arriving."""


@pytest.mark.parametrize("place", ["constructor", "call"])
@pytest.mark.parametrize("name", ["timeout", "request_timeout"])
@pytest.mark.parametrize("adapter", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
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
