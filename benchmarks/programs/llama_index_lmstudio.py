"""`llama-index-llms-lmstudio`, over LM Studio's compatible HTTP interface."""

from llama_index.llms.lmstudio import LMStudio

from benchmarks.meter import Cases
from benchmarks.programs._llama_index import program


def cases(address: str) -> Cases:
    """Return what is measured; it embeds nothing."""
    url = f"http://{address}/v1"
    return program(lambda model: LMStudio(model_name=model, base_url=url), {}, structured=False).cases(address)
