"""What the programs that use LlamaIndex have in common: the model is made once for each name, as users do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from benchmarks.programs._parts import MODELS, PROMPT, Embed, Program


class Poem(BaseModel):
    """The class of the structured response."""

    lines: list[str]


def program(
    make: Callable[[str], LLM],
    embeds: Mapping[str, Embed],
    *,
    structured: bool = True,
    runner: asyncio.Runner | None = None,
) -> Program:
    """Return the program that a language model makes.

    Args:
        make: Construct the model for a name.
        embeds: Ways to embed, by what tells them apart.
        structured: Whether it can stream a structured response from the scripted server.
        runner: The event loop of all that is asynchronous; else one of its own.
    """
    models = {name: make(name) for name in (*MODELS, "json-1000")}
    prompt = [ChatMessage(PROMPT)]

    def stream(model: str) -> Iterator[object]:
        return models[model].stream_chat(prompt)

    async def astream(model: str) -> AsyncIterator[object]:
        response = await models[model].astream_chat(prompt)
        try:
            async for chunk in response:
                yield chunk
        finally:
            await response.aclose()

    def instances(model: str) -> Iterator[object]:
        return models[model].stream_structured_predict(Poem, PromptTemplate(PROMPT))

    return Program(
        stream=stream,
        astream=astream,
        respond=lambda model: models[model].chat(prompt),
        arespond=lambda model: models[model].achat(prompt),
        embeds=embeds,
        make=lambda: make("burst-1"),
        structured=instances if structured else None,
        runner=runner or asyncio.Runner(),
    )
