"""The LlamaIndex adapter of this package."""

import asyncio

from benchmarks.meter import Cases
from benchmarks.programs._llama_index import program
from benchmarks.programs._parts import Program
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding


def cases(address: str) -> Cases:
    """Return what is measured."""
    return ours(address, asyncio.Runner()).cases(address)


def ours(address: str, runner: asyncio.Runner) -> Program:
    """Return the program."""
    embedding = LMStudioEmbedding(model="vector", host=address)
    return program(
        lambda model: LMStudio(model=model, host=address), {"": embedding.get_text_embedding_batch}, runner=runner
    )
