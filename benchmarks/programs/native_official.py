"""The official Python SDK."""

import asyncio
from collections.abc import AsyncIterator

import lmstudio as lms

from benchmarks.meter import Cases
from benchmarks.programs._parts import MODELS, PROMPT, Program


def cases(address: str) -> Cases:
    """Return what is measured."""
    client, async_client, runner = lms.Client(address), lms.AsyncClient(address), asyncio.Runner()
    models = {name: client.llm.model(name) for name in MODELS}
    embedding = client.embedding.model("vector")

    async def get() -> dict[str, lms.AsyncLLM]:
        await async_client.__aenter__()
        return {name: await async_client.llm.model(name) for name in MODELS}

    async_models = runner.run(get())

    async def astream(model: str) -> AsyncIterator[object]:
        async with await async_models[model].respond_stream(PROMPT) as stream:
            async for fragment in stream:
                yield fragment

    return Program(
        stream=lambda model: models[model].respond_stream(PROMPT),
        astream=astream,
        respond=lambda model: models[model].respond(PROMPT),
        arespond=lambda model: async_models[model].respond(PROMPT),
        embeds={"": embedding.embed},
        runner=runner,
    ).cases(address)
