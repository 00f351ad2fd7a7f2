"""The llama.cpp engine behind the whole server: a crash is one error, and the model comes back."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.engines.base import LoadRequest, Progress
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, LlamaCppModel
from tests.emulator.engines.llama_cpp.models import CHAT

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

SMALL = lms.LlmLoadModelConfig(context_length=256, max_parallel_predictions=1)
MEMORY = 600_000_000
DOUBLING = "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
LOOPING = "{% for i in range(30000) %}" * 4 + "{% endfor %}" * 4
ATTACKED = (
    f"{{% if messages[-1].content == 'double' %}}{DOUBLING}{{% endif %}}"
    f"{{% if messages[-1].content == 'loop' %}}{LOOPING}{{% endif %}}{{{{ messages[-1].content }}}}"
)
"""A template that does what it should, until a message is `double` or `loop`."""


class RecordingEngine(LlamaCppEngine):
    """Keeps the models that it has loaded."""

    def __init__(self) -> None:
        super().__init__(threads=1, offline=True, worker_memory=MEMORY if sys.platform == "linux" else None)
        self.loaded: list[LlamaCppModel] = []

    async def load(self, request: LoadRequest, on_progress: Progress) -> LlamaCppModel:
        self.loaded.append(await super().load(request, on_progress))
        return self.loaded[-1]

    def pids(self) -> list[int]:
        return [model._worker.pid for model in self.loaded]


@pytest.fixture(scope="module")
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture(scope="module")
def client(engine: RecordingEngine) -> Iterator[lms.Client]:
    """A client of a server whose workers have little memory; at the end, no worker is left."""
    with Emulator([f"{CHAT}={CHAT}"], engines={"llama_cpp": engine}) as server, lms.Client(server.address) as client:
        yield client
    for pid in engine.pids():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture(scope="module")
def good(client: lms.Client) -> lms.LLM:
    """A model for those who do no harm."""
    return client.llm.load_new_instance(CHAT, "good", config=SMALL)


def test_after_a_warm_start_the_first_question_processes_only_its_own_tokens(good: lms.LLM) -> None:
    system = "You answer questions about the ferries of a small harbor, briefly and politely. " * 4
    question = lms.Chat(system)
    question.add_user_message("Where is pier 7?")
    good.warm(system)
    result = good.respond(question, config={"max_tokens": 1})
    own = good.count_tokens("<|im_start|>user\nWhere is pier 7?<|im_end|>\n<|im_start|>assistant\n")
    prompt, cached = result.stats.prompt_tokens_count or 0, result.cached_tokens or 0
    assert 60 < prompt - own <= cached < prompt


def test_a_prompt_that_does_not_fit_names_the_limit(good: lms.LLM) -> None:
    with pytest.raises(lms.LMStudioContextOverflowError) as caught:
        good.respond("word " * 400)
    assert caught.value.limit == 256


def test_what_a_template_does_harms_only_its_own_model_which_comes_back_after_a_crash(
    client: lms.Client, good: lms.LLM, engine: RecordingEngine
) -> None:
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": ATTACKED}}
    config = SMALL.merged(lms.LlmLoadModelConfig(prompt_template=template))
    attacked = client.llm.load_new_instance(CHAT, "attacked", config=config)
    with ThreadPoolExecutor() as pool:
        if sys.platform == "linux":  # only it keeps the limit of memory
            attack = pool.submit(attacked.apply_prompt_template, "double")
            assert good.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
            with pytest.raises(lms.LMStudioServerError, match="bad_alloc"):
                attack.result(600)
        assert attacked.apply_prompt_template("fine") == "fine"
        attack = pool.submit(attacked.apply_prompt_template, "loop")
        assert good.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
        os.kill(engine.pids()[-1], signal.SIGKILL)
        with pytest.raises(lms.LMStudioModelCrashedError, match="Exit code: -9"):
            attack.result(600)
    assert [model.identifier for model in client.llm.list_loaded()] == ["good"]
    again = client.llm.load_new_instance(CHAT, "attacked", config=SMALL)
    assert again.respond("Hi", config={"maxTokens": 2}).stats.predicted_tokens_count == 2
