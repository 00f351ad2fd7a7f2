"""The llama.cpp engine behind the whole server: a crash is one error, and the model comes back. Ours."""

import os
import signal

import pytest

from lmstudio_integrations.client.sync import Client
from lmstudio_integrations.emulator.embedded import Emulator
from lmstudio_integrations.emulator.engines import _process
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioModelCrashedError
from lmstudio_integrations.types.config import LlmLoadModelConfig
from tests.emulator._llama_cpp import CHAT

pytestmark = pytest.mark.real_model

SMALL = LlmLoadModelConfig(context_length=256, max_parallel_predictions=1)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the processes that were started."""
    started: list[int] = []
    connect = _process.Worker._connect

    def spy(self: _process.Worker, *arguments: object) -> None:
        started.append(self.pid)
        connect(self, *arguments)  # type: ignore[arg-type]  # whatever the worker passes on

    monkeypatch.setattr(_process.Worker, "_connect", spy)
    return started


def test_a_crash_unloads_the_model_and_the_next_use_loads_it_again(workers: list[int]) -> None:
    with (
        Emulator([f"{CHAT}={CHAT}"], engines={"llama_cpp": LlamaCppEngine(threads=1, offline=True)}) as server,
        Client(server.address) as client,
    ):
        model = client.llm.load_new_instance(CHAT, config=SMALL)
        os.kill(workers[0], signal.SIGKILL)
        with pytest.raises(LMStudioModelCrashedError, match=r"Exit code: -9"):
            model.count_tokens("a")
        assert client.llm.list_loaded() == []
        again = client.llm.load_new_instance(CHAT, config=SMALL)
        assert again.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
        with pytest.raises(LMStudioContextOverflowError) as caught:
            again.respond("word " * 400)
        assert caught.value.limit == 256
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
