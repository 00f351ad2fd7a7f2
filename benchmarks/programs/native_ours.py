"""The native client of this package."""

import asyncio

import lmstudio_integrations as lms
from benchmarks.meter import Cases
from benchmarks.programs._parts import MODELS, PROMPT, Program


def cases(address: str) -> Cases:
    """Return what is measured."""
    return ours(address, asyncio.Runner()).cases(address)


def ours(address: str, runner: asyncio.Runner) -> Program:
    """Return the program."""
    client, async_client = lms.Client(address), lms.AsyncClient(address)
    models = {name: client.llm.model(name) for name in MODELS}
    embedding = client.embedding.model("vector")

    async def get() -> dict[str, lms.AsyncLLM]:
        return {name: await async_client.llm.model(name) for name in MODELS}

    async_models = runner.run(get())
    return Program(
        stream=lambda model: models[model].respond_stream(PROMPT),
        astream=lambda model: async_models[model].respond_stream(PROMPT),
        respond=lambda model: models[model].respond(PROMPT),
        arespond=lambda model: async_models[model].respond(PROMPT),
        embeds={"": embedding.embed},
        runner=runner,
    )
