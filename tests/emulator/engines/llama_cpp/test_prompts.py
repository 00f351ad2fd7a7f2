"""How the prompts of one conversation begin, under templates in the manner of the families of models."""

import random
import re
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppModel
from lmstudio_integrations.types.functions import ToolCallResultPart
from tests.emulator.engines.llama_cpp.models import ADD, STEADY, WEATHER, load

pytestmark = pytest.mark.slow

CONTEXT_LENGTH = 1024
TOOLS = [ADD, WEATHER]
SEEDS = range(4)


class Family(NamedTuple):
    """What a family's template does."""

    knows_tools: bool = True
    opens: str = ""
    """What the model writes before a text."""
    moves: str = "(?!)"
    """A pattern of what the template itself moves."""


FAMILIES = {
    "smollm2": Family(knows_tools=False),  # the model's own
    "gemma": Family(knows_tools=False),
    "hermes": Family(),
    "llama": Family(),
    "mistral": Family(moves=r"\[AVAILABLE_TOOLS\].*?\[/AVAILABLE_TOOLS\]"),
    "harmony": Family(opens="<|channel|>final<|message|>"),
}


async def load_family(name: str) -> LlamaCppModel:
    path = Path(__file__).parent / "templates" / f"{name}.jinja"
    if not path.exists():
        return await load(context_length=CONTEXT_LENGTH, slots=1)
    template = {"type": "jinja", "jinjaPromptTemplate": {"template": path.read_text("utf-8")}}
    return await load(context_length=CONTEXT_LENGTH, slots=1, fields={"llm.load.promptTemplate": template})


async def prompt_of(model: LlamaCppModel, chat: lms.Chat, choice: Literal["auto", "required"]) -> str:
    """Return what the engine reads for the next message."""
    history = chat.to_history()
    request = GenerateRequest(STEADY, history, tools=TOOLS, tool_choice=choice, context_length=CONTEXT_LENGTH)
    body = (await model._plan_chat(request, history)).body
    return str(body["prompt"] if choice == "required" else await model._render(body))


class Conversation:
    """A conversation with random turns: texts, calls, and forced calls."""

    def __init__(self, model: LlamaCppModel, family: Family, seed: int) -> None:
        self._model = model
        self._family = family
        self._random = random.Random(seed)
        self.chat = lms.Chat(self._text() if self._random.random() < 0.7 else None)
        self.choice: Literal["auto", "required"] = "auto"

    def ask(self) -> None:
        """Add a turn of the user, and choose how the model is to respond."""
        if not self.chat.messages or self.chat.messages[-1].role in {"assistant", "system"}:
            self.chat.add_user_message(self._text())
        self.choice = self._random.choice(["auto", "required"])

    def respond(self) -> str:
        """Add a response; return what of it must stay in the next prompt."""
        draw, call_id = self._random, str(self._random.randrange(10**8, 10**9))
        text = self._text()
        arguments = {"a": draw.randrange(99), "b": draw.randrange(99), "é": [text, None, 0.5]}
        call = lms.ToolCallRequest(id=call_id, name="add", arguments=arguments)
        if self.choice == "auto" and draw.random() < 0.5:
            self.chat.add_assistant_response(text)
            return self._family.opens + text
        self.chat.add_assistant_response("", [call])
        self.chat.add_tool_results([ToolCallResultPart(content=self._text(), tool_call_id=call_id, name="add")])
        return ""

    def _text(self) -> str:
        words = ["one", "{2}", "<tool_call>", "dre\nißig", '"', "\\", "[INST]", "😀", "  two  spaces"]
        return " ".join(self._random.choices(words, k=self._random.randrange(1, 9))).strip()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", FAMILIES)
async def test_a_prompt_begins_with_the_prompt_and_the_response_before_it(name: str) -> None:
    family, model = FAMILIES[name], await load_family(name)
    try:
        assert model.tools == family.knows_tools
        for seed in SEEDS:
            conversation, before = Conversation(model, family, seed), ""
            for _ in range(6):
                conversation.ask()
                prompt = re.sub(family.moves, "", await prompt_of(model, conversation.chat, conversation.choice))
                assert prompt.startswith(before), f"seed {seed}"
                before = prompt + conversation.respond()
    finally:
        await model.close()
