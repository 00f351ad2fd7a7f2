"""The llama.cpp engine behind the whole server: a crash is one error, and the model comes back. Ours."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.emulator.emulator import Emulator
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, worker_client
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioServerError,
)
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.config import LlmLoadModelConfig
from tests.emulator.engines.llama_cpp.models import CHAT

pytestmark = pytest.mark.slow

SMALL = LlmLoadModelConfig(context_length=256, max_parallel_predictions=1)


MEMORY = 600_000_000
DOUBLING = "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
LOOPING = "{% for i in range(30000) %}" * 4 + "{% endfor %}" * 4


def attacked(template: str) -> LlmLoadModelConfig:
    """A model whose template does what it should, until the message is `attack`."""
    jinja = f"{{% if messages[-1].content == 'attack' %}}{template}{{% endif %}}{{{{ messages[-1].content }}}}"
    settings = {"type": "jinja", "jinjaPromptTemplate": {"template": jinja}}
    return SMALL.merged(LlmLoadModelConfig(prompt_template=settings))


@pytest.fixture
def limited() -> Iterator[Emulator]:
    """A server whose workers have little memory, and with one model for those who do no harm."""
    engine = LlamaCppEngine(threads=1, offline=True, worker_memory=MEMORY)
    with Emulator([f"{CHAT}={CHAT}"], engines={"llama_cpp": engine}) as server:
        yield server


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the processes that were started."""
    started: list[int] = []
    connect = worker_client.Worker._connect

    def spy(self: worker_client.Worker, *arguments: object) -> None:
        started.append(self.pid)
        connect(self, *arguments)  # type: ignore[arg-type]  # whatever the worker passes on

    monkeypatch.setattr(worker_client.Worker, "_connect", spy)
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the limit")
def test_a_template_that_takes_all_memory_is_an_error_of_its_own_request(limited: Emulator) -> None:
    with Client(limited.address) as attacker, Client(limited.address) as other, ThreadPoolExecutor() as pool:
        bomb = attacker.llm.load_new_instance(CHAT, "bomb", config=attacked(DOUBLING))
        good = other.llm.load_new_instance(CHAT, "good", config=SMALL)
        attack = pool.submit(bomb.apply_prompt_template, "attack")
        assert good.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
        with pytest.raises(LMStudioServerError, match="ran out of memory"):
            attack.result(600)
        assert bomb.apply_prompt_template("fine") == "fine"


def test_a_template_without_end_is_a_crash_of_its_own_model(limited: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(limited.address) as attacker, Client(limited.address) as other, ThreadPoolExecutor() as pool:
        endless = attacker.llm.load_new_instance(CHAT, "endless", config=attacked(LOOPING))
        good = other.llm.load_new_instance(CHAT, "good", config=SMALL)
        monkeypatch.setattr(worker_client, "CALL_SECONDS", 2.0)
        attack = pool.submit(endless.apply_prompt_template, "attack")
        assert good.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
        with pytest.raises(LMStudioModelCrashedError, match="Exit code: -9"):
            attack.result(600)
        assert [model.identifier for model in other.llm.list_loaded()] == ["good"]
        again = attacker.llm.load_new_instance(CHAT, "endless", config=SMALL)
        assert again.count_tokens("Hi") == 1


def test_a_load_that_fails_names_the_key_and_no_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tmp_path / "secret" / "broken.gguf"
    weights.parent.mkdir()
    weights.write_bytes(b"nothing")
    engine = LlamaCppEngine(threads=1, offline=True)
    with (
        Emulator([f"my-model={weights}"], engines={"llama_cpp": engine}) as server,
        Client(server.address) as client,
        pytest.raises(LMStudioModelLoadError) as caught,
    ):
        client.llm.load_new_instance("my-model")
    assert "my-model: broken.gguf is not a GGUF file" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(weights) in caplog.text


STRICT = (
    "{% for message in messages %}{% if not loop.last or message.role == 'user' %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% else %}{{ raise_exception('no question') }}{% endif %}{% endfor %}<|im_start|>assistant\n"
)


@pytest.mark.parametrize("template", [None, STRICT], ids=["its own template", "a template that needs a question"])
def test_after_a_warm_start_the_first_question_processes_only_its_own_tokens(template: str | None) -> None:
    system = "You answer questions about the ferries of a small harbor, briefly and politely. " * 4
    settings = None if template is None else {"type": "jinja", "jinjaPromptTemplate": {"template": template}}
    config = LlmLoadModelConfig(context_length=512, max_parallel_predictions=1, prompt_template=settings)
    question = Chat(system)
    question.add_user_message("Where is pier 7?")
    engine = LlamaCppEngine(threads=1, offline=True)
    with Emulator([f"{CHAT}={CHAT}"], engines={"llama_cpp": engine}) as server, Client(server.address) as client:
        model = client.llm.load_new_instance(CHAT, config=config)
        model.warm(system)
        result = model.respond(question, config={"max_tokens": 1})
        own = model.count_tokens("<|im_start|>user\nWhere is pier 7?<|im_end|>\n<|im_start|>assistant\n")
        prompt, cached = result.stats.prompt_tokens_count, result.cached_tokens
        assert prompt is not None
        assert cached is not None
        assert 60 < prompt - own <= cached < prompt
        assert len(server.predictions) == (2 if template is None else 3)
