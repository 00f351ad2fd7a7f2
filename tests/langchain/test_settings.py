"""Settings of `ChatLMStudio`, as fields and as call arguments, and how they load a model."""

import threading

import pytest

from lmstudio_integrations.emulator.models.catalog import Catalog, Preset
from lmstudio_integrations.errors import (
    LMStudioPresetNotFoundError,
)
from tests.langchain.conftest import CHAT, MODELS, Invoke, Server
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
