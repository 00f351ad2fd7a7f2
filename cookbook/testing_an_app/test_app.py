"""Tests of `app.py`: they start the emulator themselves, and need no LM Studio."""

from typing import Any

import pytest
from app import LATER, Ticket, reply, sort

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio

MODEL = "qwen/qwen3-4b"
BAG = "I lost my bag!"


@pytest.fixture(scope="session")
def lmstudio_models() -> list[dict[str, Any]]:
    """The model of the emulator, and what it responds: the first match counts."""
    ticket = '{"department": "lost property", "urgent": true}'
    rules = [
        {"when": {"structured": True, "last": "bag"}, "then": [{"text": ticket}]},
        {"when": {"last": "bag"}, "then": [{"text": "We have your bag."}]},
        {"when": {"last": "storm"}, "then": [{"error": "The model crashed."}]},
    ]
    return [{"key": MODEL, "rules": rules}]


@pytest.fixture
def model(lmstudio_emulator: Emulator) -> ChatLMStudio:
    """The model of an emulator that runs for one test."""
    return ChatLMStudio(model=MODEL, host=lmstudio_emulator.address)


def test_a_message_is_sorted(model: ChatLMStudio) -> None:
    assert sort(BAG, model) == Ticket(department="lost property", urgent=True)


def test_the_reply_is_requested_with_a_prompt_and_a_temperature(
    model: ChatLMStudio, lmstudio_emulator: Emulator
) -> None:
    assert reply(BAG, model) == "We have your bag."
    (request,) = lmstudio_emulator.predictions
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.config["temperature"] == 0.2


def test_there_is_a_reply_if_the_model_fails(model: ChatLMStudio) -> None:
    assert reply("Do you run in a storm?", model) == LATER


def test_there_is_a_reply_if_no_server_responds() -> None:
    assert reply(BAG, ChatLMStudio(host="localhost:9")) == LATER


def test_every_message_gets_a_department(lmstudio_host: str) -> None:
    """Also runs on a real model: `pytest --lmstudio-host localhost:1234`."""
    model = ChatLMStudio(model=MODEL, host=lmstudio_host)
    assert sort("When does the first ferry leave?", model).department
