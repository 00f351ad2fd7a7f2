"""What the programs that use LangChain have in common: the model is made once for each name, as users do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

from benchmarks.programs._parts import MODELS, PROMPT, Embed, Program


def program(
    make: Callable[[str], BaseChatModel], embeds: Mapping[str, Embed], *, runner: asyncio.Runner | None = None
) -> Program:
    """Return the program that a chat model makes.

    Args:
        make: Construct the chat model for a name.
        embeds: Ways to embed, by what tells them apart.
        runner: The event loop of all that is asynchronous; else one of its own.
    """
    models = {name: make(name) for name in MODELS}
    prompt = [HumanMessage(PROMPT)]

    def stream(model: str) -> Iterator[object]:
        return models[model].stream(prompt)

    def astream(model: str) -> AsyncIterator[object]:
        return models[model].astream(prompt)

    return Program(
        stream=stream,
        astream=astream,
        respond=lambda model: models[model].invoke(prompt),
        arespond=lambda model: models[model].ainvoke(prompt),
        embeds=embeds,
        make=lambda: make("burst-1"),
        runner=runner or asyncio.Runner(),
    )
