"""The LlamaIndex adapter of this package."""

from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.benchmarks.meter import Cases
from tests.benchmarks.programs._llama_index import program


def cases(address: str) -> Cases:
    """Return what is measured."""
    embedding = LMStudioEmbedding(model="vector", host=address)
    return program(lambda model: LMStudio(model=model, host=address), {"": embedding.get_text_embedding_batch}).cases(
        address
    )
