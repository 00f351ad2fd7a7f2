"""`llama-index-llms-openai-like`, and the embeddings of `llama-index-embeddings-openai`, which it goes with."""

from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai_like import OpenAILike

from benchmarks.meter import Cases
from benchmarks.programs._llama_index import program
from benchmarks.programs._parts import Embed
from benchmarks.rows import BASE64, FLOATS


def cases(address: str) -> Cases:
    """Return what is measured."""
    url = f"http://{address}"

    def embed(base: str) -> Embed:
        embedding = OpenAIEmbedding(model_name="vector", api_base=base, api_key="none", embed_batch_size=100)
        way: Embed = embedding.get_text_embedding_batch
        return way

    return program(
        lambda model: OpenAILike(model=model, api_base=f"{url}/v1", api_key="none", is_chat_model=True),
        {f", {BASE64}": embed(f"{url}/v1"), f", {FLOATS}": embed(f"{url}/floats/v1")},
        structured=False,
    ).cases(address)
