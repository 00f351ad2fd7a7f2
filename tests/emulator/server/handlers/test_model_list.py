"""The models over HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.emulator.server.test_server import get
from tools.evidence.rows import OBSERVATIONS, read

pytestmark = pytest.mark.leaf

PATH = "/api/v1/models"
TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
SEEN: list[dict[str, Any]] = [
    model for row in read(OBSERVATIONS) if row.kind == "efforts" for model in row.payload["models"]
]


def listed(server: Emulator, **headers: str) -> dict[str, Any]:
    status, kind, text = get(server, PATH, None, **headers)
    assert (status, kind) == (200, "application/json")
    return {model["key"]: model for model in json.loads(text)["models"]}


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    models = [
        ModelEntry(
            key="switched", context_length=512, reasoning_options=("off", "on"), quantization=("Q4_K_M", 4), params="4B"
        ),
        ModelEntry(key="leveled", reasoning_options=("low", "medium", "high"), reasoning_default="low", vision=True),
        ModelEntry(key="plain", tools=False),
        ModelEntry(key="vectors", kind="embedding"),
        ModelEntry(key="later", downloaded=False),
    ]
    with Emulator(models, auto_evict=False) as running:
        running.load("switched", identifier="mine")
        running.load("switched")
        yield running


def test_each_downloaded_model_is_listed_with_what_it_can_do_and_allows(server: Emulator) -> None:
    models = listed(server)
    assert {key: model.get("capabilities") for key, model in models.items()} == {
        "switched": {
            "vision": False,
            "trained_for_tool_use": True,
            "reasoning": {"allowed_options": ["off", "on"], "default": "on"},
        },
        "leveled": {
            "vision": True,
            "trained_for_tool_use": True,
            "reasoning": {"allowed_options": ["low", "medium", "high"], "default": "low"},
        },
        "plain": {"vision": False, "trained_for_tool_use": False},
        "vectors": None,
    }
    assert [each["id"] for each in models["switched"]["loaded_instances"]] == ["mine", "switched"]
    assert models["switched"]["loaded_instances"][0]["config"] == {"context_length": 512}
    assert models["switched"]["quantization"] == {"name": "Q4_K_M", "bits_per_weight": 4}


@pytest.mark.parametrize(("key", "kind"), [("switched", "llm"), ("vectors", "embedding")])
def test_a_model_has_no_member_that_no_server_was_seen_to_send(server: Emulator, key: str, kind: str) -> None:
    members = {name for model in SEEN if model["type"] == kind for name in model}
    assert listed(server)[key].keys() <= members


def test_the_list_needs_a_token_where_one_is_required() -> None:
    with Emulator(["m"], tokens=[TOKEN]) as server:
        status, _, text = get(server, PATH)
        assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
        assert listed(server, Authorization=f"Bearer {TOKEN}").keys() == {"m"}


def test_formats_have_the_names_that_they_have_over_http() -> None:
    formats = {"gguf": "gguf", "safetensors": "mlx", "yuzu": "splash", "torch_safetensors": "torch_safetensors"}
    with Emulator([ModelEntry(key=name, format=name) for name in formats]) as server:
        assert {key: model["format"] for key, model in listed(server).items()} == formats
