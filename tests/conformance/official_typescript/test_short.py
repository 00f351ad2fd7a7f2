"""What every program does: load, ask, stream, embed, list, unload. For every release of the SDK."""

from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.short
CHAT, EMBEDDING = "qwen2.5-7b-instruct", "text-embedding-nomic-embed-text-v1.5"
Step = Callable[..., Any]


def test_get_or_load_reports_progress_and_loads_once(server: Emulator, run: Step) -> None:
    found = run(server, "load")
    assert found["identifiers"] == [CHAT, CHAT]
    assert found["progress"][-1] == 1
    assert [info.ttl_ms for info in server.loaded()] == [60_000]


def test_a_model_responds(server: Emulator, run: Step) -> None:
    found = run(server, "respond")
    assert "Hello there" in found["content"]
    assert found["stats"]["stopReason"] == "eosFound"
    assert found["modelKey"] == CHAT
    assert (found["prompt"][0], found["prompt"][-1]) == (0, 1)


def test_a_response_streams(server: Emulator, run: Step) -> None:
    found = run(server, "stream")
    assert len(found["fragments"]) > 5
    assert "".join(found["fragments"]) == found["content"]


def test_a_text_is_continued(server: Emulator, run: Step) -> None:
    assert run(server, "complete")["stopReason"] == "maxPredictedTokensReached"
    assert server.predictions[-1].raw


def test_cancelling_stops_the_generation(server: Emulator, run: Step) -> None:
    assert run(server, "cancel")["stopReason"] == "userStopped"
    assert server.predictions[-1].stop_reason == "userStopped"


def test_texts_are_embedded(server: Emulator, run: Step) -> None:
    assert run(server, "embed") == {"lengths": [768, 768], "context": 2048}


def test_structured_output_fits_its_schema(server: Emulator, run: Step) -> None:
    book = run(server, "structured")
    assert {name: type(value) for name, value in book.items()} == {"title": str, "pages": int}


def test_models_are_listed_and_unloaded(server: Emulator, run: Step) -> None:
    found = run(server, "listAndUnload")
    assert found["loaded"] == [CHAT]
    assert {CHAT, EMBEDDING} <= set(found["downloaded"])
    assert "not-yet-here" not in found["downloaded"]
    assert found["after"] == 0


def test_a_first_program_runs_on_the_models_of_plain_serve(plain_server: Emulator, run: Step) -> None:
    found = run(plain_server, "first")
    assert set(found["downloaded"]) == {model.key for model in plain_server.catalog.models}
    assert found["content"]


def test_tools_are_called_until_there_is_a_response(server: Emulator, run: Step) -> None:
    found = run(server, "act")
    assert found["rounds"] == 2
    assert [role for role, _ in found["messages"]] == ["assistant", "tool", "assistant"]
    assert found["messages"][-1][1] == "The result is 5."
