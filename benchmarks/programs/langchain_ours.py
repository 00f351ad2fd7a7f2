"""The LangChain adapter of this package."""

import asyncio

from benchmarks.meter import Cases
from benchmarks.programs._langchain import program
from benchmarks.programs._parts import Program
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings


def cases(address: str) -> Cases:
    """Return what is measured."""
    return ours(address, asyncio.Runner()).cases(address)


def ours(address: str, runner: asyncio.Runner) -> Program:
    """Return the program."""
    embeddings = LMStudioEmbeddings(model="vector", host=address)
    return program(
        lambda model: ChatLMStudio(model=model, host=address), {"": embeddings.embed_documents}, runner=runner
    )
