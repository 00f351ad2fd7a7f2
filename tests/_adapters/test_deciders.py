"""The adapters that decide, of both frameworks: which model answers if none is named."""

import asyncio
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import LMStudioClassifier
from lmstudio_integrations.llama_index import LMStudioEvaluator, LMStudioSelector

JUDGE: dict[str, Any] = {"key": "judge", "kind": "decision"}
CHAT: dict[str, Any] = {"key": "chat", "preload": True}


async def classify(host: str) -> None:
    noul: Any = {"type": "noul", "instructions": "Is it a boat?"}
    await LMStudioClassifier(host=host).ainvoke({"state": "a boat", "questions": {"a": noul}})


async def select(host: str) -> None:
    await LMStudioSelector(host=host).aselect(["boats", "menus"], "a boat")


async def evaluate(host: str) -> None:
    await LMStudioEvaluator(host=host).aevaluate(response="a boat")


@pytest.mark.parametrize("decide", [classify, select, evaluate])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_without_a_name_a_loaded_decision_model_answers_else_a_language_model(decide: Any, is_loaded: bool) -> None:
    with Emulator([CHAT, {**JUDGE, "preload": is_loaded}]) as server:
        asyncio.run(decide(server.address))
        assert bool(server.predictions) is not is_loaded, "only a language model predicts"
        assert len(server.loads) == 1 + is_loaded, "those of the beginning"


@pytest.mark.parametrize("make", [LMStudioClassifier, LMStudioSelector, LMStudioEvaluator])
@pytest.mark.parametrize("name", ["judge", "chat"])
def test_what_decides_is_unloaded_also_before_the_first_call(make: Any, name: str) -> None:
    with Emulator([CHAT, {**JUDGE, "preload": True}]) as server:
        make(model=name, host=server.address).unload()
        assert [info.identifier for info in server.loaded()] == [{"judge": "chat", "chat": "judge"}[name]]
