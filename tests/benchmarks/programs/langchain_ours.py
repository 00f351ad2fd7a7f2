"""The LangChain adapter of this package."""

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from tests.benchmarks.meter import Cases
from tests.benchmarks.programs._langchain import program


def cases(address: str) -> Cases:
    """Return what is measured."""
    embeddings = LMStudioEmbeddings(model="vector", host=address)
    return program(lambda model: ChatLMStudio(model=model, host=address), {"": embeddings.embed_documents}).cases(
        address
    )
