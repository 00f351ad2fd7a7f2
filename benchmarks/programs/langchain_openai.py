"""`langchain-openai`."""

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from benchmarks.meter import Cases
from benchmarks.programs._langchain import program
from benchmarks.programs._parts import Embed
from benchmarks.rows import BASE64, FLOATS

_KEY = SecretStr("none")


def cases(address: str) -> Cases:
    """Return what is measured."""
    url = f"http://{address}"

    def embed(base: str) -> Embed:
        # Without the check, which needs the tokenizer of OpenAI's own models.
        embeddings = OpenAIEmbeddings(model="vector", base_url=base, api_key=_KEY, check_embedding_ctx_length=False)
        way: Embed = embeddings.embed_documents
        return way

    return program(
        lambda model: ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=_KEY),
        {f", {BASE64}": embed(f"{url}/v1"), f", {FLOATS}": embed(f"{url}/floats/v1")},
    ).cases(address)
