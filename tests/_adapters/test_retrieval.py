"""Two chat models in turn, on a server with Auto-Evict.

Counted in loads, not in seconds: each load of a large model costs a user many of them.
"""

import re
import warnings
from collections import Counter
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser

from lmstudio_integrations import LMStudioEvictionWarning
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import LoadPolicy
from tests.docs.snippets import read
from tests.support.served import served

pytestmark = pytest.mark.slow

QUESTIONS = 2
SLOWLY: dict[str, Any] = {"when": {}, "then": [{"text": "Because "}, {"wait": 0.02}, {"text": "of the light."}]}
TEXT = "Because of the light."
MODELS = (
    ModelEntry(key="chat", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
    ModelEntry(key="reviewer", context_length=8192, rules=(SLOWLY,), load_seconds=0.05),
)

server = served(MODELS, scope="function")
"""A server with the default settings of LM Studio: a just-in-time load evicts what earlier ones brought."""


def loads(server: Emulator) -> Counter[str]:
    return Counter(load.key for load in server.loads)


def test_two_chat_models_evict_each_other_with_one_warning(server: Emulator) -> None:
    writing, reviewing = (ChatLMStudio(model=key, host=server.address) for key in ("chat", "reviewer"))
    chain = writing | StrOutputParser() | reviewing | StrOutputParser()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        responses = [chain.invoke("Why?") for _ in range(QUESTIONS)]
    assert set(responses) == {TEXT}
    assert [warning.category for warning in caught] == [LMStudioEvictionWarning]
    assert loads(server) == {"chat": QUESTIONS, "reviewer": QUESTIONS}
    section = re.findall('see "(.+)" in the guide', str(caught[0].message))
    assert section
    assert f"\n## {section[0]}\n" in read("docs/guides/loading.md")


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        ("explicit", "get_or_load"),
        ("get_or_load", "explicit"),
        ("explicit", "explicit"),
        pytest.param("fit", "fit", marks=pytest.mark.leaf),
    ],
)
def test_two_chat_models_stay_with_the_policies_that_the_guide_names(
    policy: LoadPolicy, other: LoadPolicy, server: Emulator
) -> None:
    planner = ChatLMStudio(model="chat", load_policy=policy, host=server.address)
    coder = LMStudio(model="reviewer", load_policy=other, host=server.address)
    for _ in range(QUESTIONS):
        planner.invoke("Why?")
        coder.complete("Why?")
    assert loads(server) == {"chat": 1, "reviewer": 1}
