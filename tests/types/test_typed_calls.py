"""What calls accept at run time, type checkers accept, such as configs as dicts in either spelling."""

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator


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


def test_dicts_with_declared_types() -> None:
    both: lms.LlmPredictionConfigDict = {"maxTokens": 5, "reasoning_parsing": {"enabled": True, "start_string": "<t>"}}
    assert lms.LlmPredictionConfig.parse(both).max_tokens == 5
    load: lms.EmbeddingLoadModelConfigDict = {"context_length": 5, "gpu": {"disabledGpus": [0]}, "try_mmap": None}
    assert lms.EmbeddingLoadModelConfig.parse(load).context_length == 5


def test_wrong_dicts_are_rejected() -> None:
    misspelt: lms.LlmLoadModelConfigDict = {"context_lenght": 5}  # type: ignore[typeddict-unknown-key]
    nested: lms.LlmLoadModelConfigDict = {"gpu": {"main": 5}}  # type: ignore[typeddict-item]
    mistyped: lms.LlmLoadModelConfigDict = {"context_length": "5k"}  # type: ignore[typeddict-item]
    for wrong in (misspelt, nested, mistyped):
        with pytest.raises(lms.LMStudioValueError):
            lms.LlmLoadModelConfig.parse(wrong)
