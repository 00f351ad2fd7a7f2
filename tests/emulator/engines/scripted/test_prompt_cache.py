"""The cached tokens that scripted models report."""

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedModel, chat_template, words
from lmstudio_integrations.types.chat import Chat
from lmstudio_integrations.types.results import PromptProgress
from lmstudio_integrations.types.tools import Tool
from tests.emulator.engines.scripted.models import Response, always, events_of, generate_request, load, tool

TOOLS = [tool("add", a={"type": "integer"}), tool("tell", text={"type": "string"})]


def chat(*texts: str) -> Chat:
    """A conversation of a system message, then questions and responses."""
    made = Chat(texts[0])
    for number, text in enumerate(texts[1:]):
        (made.add_assistant_response if number % 2 else made.add_user_message)(text)
    return made


async def cached(model: ScriptedModel, request: GenerateRequest) -> int:
    progress = Response(await events_of(model, request)).of_type(PromptProgress)
    details = progress[-1].details
    assert details["cachedTokenCount"] + details["processedPromptTokenCount"] == details["totalPromptTokenCount"]
    return int(details["cachedTokenCount"])


def tokens(some: Chat, tools: list[Tool] | None = None) -> int:
    """The tokens of messages in the middle of a prompt."""
    rendered = chat_template.render(some.to_history().messages, tools or [])
    return words.count(rendered) - words.count(chat_template.render([], []))


async def test_whole_messages_that_an_earlier_prompt_began_with_are_cached() -> None:
    model = await load(always("Fine."))
    assert await cached(model, generate_request(chat("Be brief.", "How are you?"), tools=TOOLS)) == 0
    grown = chat("Be brief.", "How are you?", "Fine.", "And now?")
    assert await cached(model, generate_request(grown, tools=TOOLS)) == tokens(chat("Be brief.", "How are you?"), TOOLS)
    other = chat("Be brief.", "Who are you?")
    assert await cached(model, generate_request(other, tools=TOOLS)) == tokens(chat("Be brief."), TOOLS)
    assert await cached(model, generate_request(grown, tools=TOOLS[::-1])) == 0
    clock = chat("It is noon. Be brief.", "How are you?")
    only_tools = tokens(chat("Be brief."), TOOLS) - tokens(chat("Be brief."))
    assert await cached(model, generate_request(clock, tools=TOOLS)) == only_tools


async def test_of_the_same_prompt_only_what_follows_the_last_message_is_processed() -> None:
    model = await load(always("Fine."))
    request = generate_request(chat("Be brief.", "How are you?"))
    await events_of(model, request)
    assert await cached(model, request) == tokens(chat("Be brief.", "How are you?"))


async def test_raw_prompts_are_not_cached() -> None:
    model = await load(always("Fine."))
    request = GenerateRequest(generate_request().config, prompt="Once upon a time", context_length=4096)
    await events_of(model, request)
    assert await cached(model, request) == 0
