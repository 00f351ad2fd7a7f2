"""Settings of `ChatLMStudio`, as fields and as call arguments, and how they load a model."""

import threading
from typing import Any

import pytest
from langchain_core.exceptions import (
    ModelInvalidRequestError,
)

from lmstudio_integrations.emulator.models.catalog import Catalog, Preset
from lmstudio_integrations.errors import (
    LMStudioPresetNotFoundError,
    LMStudioValueError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from tests.langchain.conftest import CHAT, COUNTED, MODELS, Invoke, Server
from tests.support.tqdm_bars import Drawn

# Settings -------------------------------------------------------------------------------------------------------------


def test_a_preset_ranks_below_what_is_set(generate: Invoke) -> None:
    preset = Preset(
        identifier="mine",
        fields={"llm.prediction.temperature": 0.9, "llm.prediction.topKSampling": 7},
    )
    with Server(catalog=Catalog(models=tuple(MODELS), presets=(preset,)), models=None) as server:
        generate(server.chat(preset="mine", temperature=0.1), "count")
        assert (server.last_request.config.temperature, server.last_request.config.top_k_sampling) == (0.1, 7)
        with pytest.raises(LMStudioPresetNotFoundError):
            generate(server.chat(preset="yours"), "count")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"num_ctx": 1}, "did you mean 'context_length'"),
        ({"zzz": 1}, r"unknown setting 'zzz'; help\(ChatLMStudio\) lists the known ones"),
        ({"host": "a", "base_url": "b"}, "another name of 'host'"),
        ({"load_config": {"contextLenght": 3}}, "contextLength|context_length"),
        ({"temperature": -1}, "temperature"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_unknown_and_impossible_settings_are_rejected_at_once(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ChatLMStudio(model="m", **given)


def test_unknown_settings_of_a_call_are_rejected_before_anything_is_sent(server: Server, generate: Invoke) -> None:
    with pytest.raises(LMStudioValueError, match="did you mean 'temperature'") as caught:
        generate(server.chat(), "count", temprature=1)
    assert isinstance(caught.value, ModelInvalidRequestError)
    wrong: Any
    for wrong in (2, [1]):
        with pytest.raises(LMStudioValueError, match="unknown setting 'n'"):
            generate(server.chat(), "count", n=wrong)
    for wrong in (None, "x", -1, True):
        with pytest.raises(LMStudioValueError, match=f"max_retries={wrong!r}: "):
            generate(server.chat(), "count", max_retries=wrong)
    assert generate(server.chat(), "count", n=1).content == COUNTED
    assert len(server.predictions) == 1


# Loading --------------------------------------------------------------------------------------------------------------


def test_the_context_window_of_a_call_ranks_above_the_fields(server: Server) -> None:
    llm = server.chat(context_length=1024)
    llm.invoke("count", load_config={"context_length": 2048})
    assert server.loaded()[0].context_length == 2048
    server.unload(CHAT)
    llm.invoke("count", context_length=512, on_config_mismatch="ignore")
    assert server.loaded()[0].context_length == 512


def test_progress_is_reported_by_the_caller_of_the_model(server: Server, generate: Invoke, drawn: Drawn) -> None:
    loaded: list[float] = []
    read: list[float] = []
    threads: set[int] = set()

    def note(progress: float) -> None:
        loaded.append(progress)
        threads.add(threading.get_ident())

    generate(server.chat(on_load_progress=note, on_prompt_progress=read.append, show_progress=True), "count")
    assert loaded == sorted(set(loaded))
    assert (loaded[0], loaded[-1]) == (0.0, 1.0)
    assert (read[0], read[-1]) == (0.0, 1.0)
    assert threads == {threading.get_ident()}
    assert f"Loading {CHAT}" in drawn()
