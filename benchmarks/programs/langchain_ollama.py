"""`langchain-ollama`."""

from langchain_ollama import ChatOllama, OllamaEmbeddings

from benchmarks.meter import Cases
from benchmarks.programs._langchain import program


def cases(address: str) -> Cases:
    """Return what is measured."""
    url = f"http://{address}"
    embeddings = OllamaEmbeddings(model="vector", base_url=url)
    return program(lambda model: ChatOllama(model=model, base_url=url), {"": embeddings.embed_documents}).cases(address)
