"""What calls accept at run time, type checkers accept, such as configs as dicts in either spelling."""

from types import MappingProxyType
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio


@pytest.fixture
def server() -> Emulator:
    return Emulator([{"key": "m", "engine": "scripted"}])


def test_calls_of_the_native_client(server: Emulator) -> None:
    with server, lms.Client(server.address) as client:
        model = client.llm.model("m", config={"context_length": 2048, "gpu": {"main_gpu": 0, "ratio": 0.5}})
        assert model.get_load_config().context_length == 2048
        model.respond("Hello!", config={"max_tokens": 5, "temperature": 0})
        model.respond("Hello!", config={"maxTokens": 5, "temperature": 0, "stopStrings": ("x",)})
        model.complete("Hello!", config={"max_tokens": False, "top_k_sampling": None})
        client.llm.load_new_instance("m", config={"contextLength": 2048, "gpu": lms.GpuSetting(ratio="max")})
        first, second, third = server.predictions
    assert (first.config["maxTokens"], second.config["maxTokens"], second.config["stopStrings"]) == (5, 5, ["x"])
    assert "topKSampling" not in third.config


async def test_calls_of_the_async_client(server: Emulator) -> None:
    with server:
        async with lms.AsyncClient(server.address) as client:
            model = await client.llm.model("m", config={"context_length": 2048})
            await model.respond("Hello!", config={"max_tokens": 5})
        assert [each.config["maxTokens"] for each in server.predictions] == [5]


async def test_batches_of_one_kind_of_input(server: Emulator) -> None:
    questions = ["Hello!", "Who are you?"]
    conversations = [[("system", "You are brief."), ("user", question)] for question in questions]
    with server:
        model = ChatLMStudio(model="m", host=server.address)
        assert len(model.batch(questions)) == len(await model.abatch(conversations)) == 2


def test_dicts_with_declared_types() -> None:
    both: lms.LlmPredictionConfigDict = {"maxTokens": 5, "reasoning_parsing": {"enabled": True, "start_string": "<t>"}}
    assert lms.LlmPredictionConfig.parse(both).max_tokens == 5
    load: lms.EmbeddingLoadModelConfigDict = {"context_length": 5, "gpu": {"disabledGpus": [0]}, "try_mmap": None}
    assert lms.EmbeddingLoadModelConfig.parse(load).context_length == 5


def test_configs_of_calls(server: Emulator) -> None:
    declared: lms.LlmPredictionConfigDict = {"max_tokens": 5}
    undeclared: dict[str, Any] = {"max_tokens": 5}
    with server, lms.Client(server.address) as client:
        model = client.llm.model("m")
        for config in (declared, lms.LlmPredictionConfig(max_tokens=5), lms.LlmPredictionConfig.parse(undeclared)):
            model.respond("Hello!", config=config)
        model.complete("Hello!", config={**declared, "temperature": 0})
        model.respond("Hello!", config=undeclared)  # type: ignore[arg-type]
        model.respond("Hello!", config=MappingProxyType(undeclared))  # type: ignore[arg-type]
        assert [each.config["maxTokens"] for each in server.predictions] == [5] * 6


def look(city: str) -> str:
    """Look."""
    return city


def test_misspelt_settings_of_calls_are_rejected(server: Emulator) -> None:
    with server, lms.Client(server.address) as client:
        model = client.llm.model("m")
        with pytest.raises(lms.LMStudioValueError, match="temprature"):
            model.respond("Hello!", config={"temprature": 0})  # type: ignore[arg-type]
        with pytest.raises(lms.LMStudioValueError, match="temprature"):
            model.complete_stream("Hello!", config={"temprature": 0})  # type: ignore[arg-type]
        with pytest.raises(lms.LMStudioValueError, match="temprature"):
            model.act("Hello!", [look], config={"temprature": 0})  # type: ignore[arg-type]
        with pytest.raises(lms.LMStudioValueError, match="context_lenght"):
            client.llm.load_new_instance("m", config={"context_lenght": 5})  # type: ignore[arg-type]
        assert not server.predictions


def test_wrong_dicts_are_rejected() -> None:
    misspelt: lms.LlmLoadModelConfigDict = {"context_lenght": 5}  # type: ignore[typeddict-unknown-key]
    nested: lms.LlmLoadModelConfigDict = {"gpu": {"main": 5}}  # type: ignore[typeddict-item]
    mistyped: lms.LlmLoadModelConfigDict = {"context_length": "5k"}  # type: ignore[typeddict-item]
    for wrong in (misspelt, nested, mistyped):
        with pytest.raises(lms.LMStudioValueError):
            lms.LlmLoadModelConfig.parse(wrong)
