"""The peers' chat models, in the hands of other programs: the columns beside ours in `tests/contract/objects.py`."""

from typing import Any

import pytest
from neighbour_servers import Collector, Received
from objects import LANGCHAIN, LLAMA_INDEX, PROMPT, SECRET, TEXT, outcome

pytestmark = pytest.mark.neighbour(
    "langchain-openai",
    "langchain-ollama",
    "llama-index-llms-ollama",
    "llama-index-llms-openai-like",
    group="peers",
    job="the peers of this package: copied, pickled, dumped, configured, traced",
    weekly=True,
)


def answer(request: Received) -> tuple[int, Any]:
    """Answer as a server of OpenAI or Ollama does."""
    if request.path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    if request.path == "/api/show":
        return 200, {"model_info": {"m.context_length": 4096}}
    done = {"model": "m", "created_at": "2026-11-29T00:00:00Z", "done": True, "done_reason": "stop"}
    return 200, {**done, "message": {"role": "assistant", "content": TEXT}}


def peers(framework: str, address: str) -> list[Any]:
    if framework == "langchain":
        from langchain_ollama import ChatOllama
        from langchain_openai import ChatOpenAI

        ollama: Any = ChatOllama(model="m", temperature=0.5, base_url=address)
        openai: Any = ChatOpenAI(model="gpt-4o", temperature=0.5, base_url=f"{address}/v1", api_key=SECRET)  # type: ignore[arg-type]
        ollama.invoke(PROMPT)
        openai.invoke(PROMPT)
    else:
        from llama_index.llms.ollama import Ollama
        from llama_index.llms.openai_like import OpenAILike

        ollama = Ollama(model="m", temperature=0.5, base_url=address)
        openai = OpenAILike(model="m", temperature=0.5, api_base=f"{address}/v1", api_key=SECRET, is_chat_model=True)
        ollama.complete(PROMPT)
        openai.complete(PROMPT)
    return [ollama, openai]


@pytest.mark.parametrize(
    ("framework", "name"),
    [("langchain", name) for name in LANGCHAIN] + [("llama_index", name) for name in LLAMA_INDEX],
)
def test_the_columns_of_the_peers(
    collector: Collector, outward: list[str], monkeypatch: pytest.MonkeyPatch, framework: str, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    collector.answer = answer
    row = {"langchain": LANGCHAIN, "llama_index": LLAMA_INDEX}[framework][name]
    found = tuple(outcome(row, peer) for peer in peers(framework, collector.address))
    if "offline" in name:
        outward.clear()  # they download a tokenizer
    assert found == row.peers
