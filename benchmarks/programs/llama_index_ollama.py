"""`llama-index-llms-ollama` and `llama-index-embeddings-ollama`."""

from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama

from benchmarks.meter import Cases
from benchmarks.programs._llama_index import program


def cases(address: str) -> Cases:
    """Return what is measured."""
    url = f"http://{address}"
    embedding = OllamaEmbedding("vector", base_url=url, embed_batch_size=100)
    return program(lambda model: Ollama(model=model, base_url=url), {"": embedding.get_text_embedding_batch}).cases(
        address
    )
