"""A researcher plans questions, searches documents for each, and writes a report."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "gpt-researcher",
    "litellm",
    group="applications",
    job="a researcher plans questions, searches documents and writes a report",
    settings="Its list of providers is fixed: add `lmstudio` to `_SUPPORTED_PROVIDERS` and replace "
    "`GenericLLMProvider.from_provider` by `lambda cls, provider, log=None, verbose=True, **settings: "
    "cls(ChatLMStudio(**settings), log, verbose)`; set `researcher.memory._embeddings` to `LMStudioEmbeddings`, with "
    '`EMBEDDING=custom:KEY`, which opens no connection. `LLM_KWARGS={"context_length": 16384}`: it asks for up to '
    "6,000 tokens in a response. It searches the web even with documents of your own: `RETRIEVER=custom` names an "
    "address of yours. It counts tokens with tiktoken, which downloads `o200k_base`: without internet, "
    "`TIKTOKEN_CACHE_DIR` is the folder `litellm_core_utils/tokenizers` of litellm",
    environment={"RETRIEVER": "custom"},
    weekly=True,
)


async def test_a_report_from_documents(serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAST_LLM", "SMART_LLM", "STRATEGIC_LLM"):
        monkeypatch.setenv(name, f"lmstudio:{CHAT}")
    monkeypatch.setenv("LLM_KWARGS", '{"context_length": 16384}')
    monkeypatch.setenv("EMBEDDING", f"custom:{REAL_EMBEDDING}")
    monkeypatch.setenv("RETRIEVER_ENDPOINT", f"{collector.address}/search")
    monkeypatch.setenv("COMPRESSION_THRESHOLD", "0")  # so that it embeds short documents, too
    collector.answer = lambda _: (200, [{"url": "https://ferry.example", "raw_content": "Ferries sail all day."}])
    litellm = find_spec("litellm")
    assert litellm is not None
    tokenizers = Path(str(litellm.origin)).parent / "litellm_core_utils/tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tokenizers))

    from gpt_researcher import GPTResearcher
    from gpt_researcher.llm_provider.generic import base
    from langchain_core.documents import Document

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    def from_provider(cls: Any, provider: str, log: str | None = None, verbose: bool = True, **settings: Any) -> Any:
        assert provider == "lmstudio"
        return cls(ChatLMStudio(**settings), log, verbose)

    monkeypatch.setattr(base, "_SUPPORTED_PROVIDERS", base._SUPPORTED_PROVIDERS | {"lmstudio"})
    monkeypatch.setattr(base.GenericLLMProvider, "from_provider", classmethod(from_provider))
    server = serve(
        {"when": {"last": "^task: "}, "then": '{"server": "Ferry Agent", "agent_role_prompt": "You know ferries."}'},
        {"when": {"last": "^Write 3 search queries"}, "then": '["time on the ferry"]'},
        {"then": "# Ferries\nThe ferry takes twenty minutes."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    texts = {"ferry": "The ferry to the island takes twenty minutes.", "pool": "The pool costs four euros."}
    researcher = GPTResearcher(
        "How long does the ferry take?",
        report_source="langchain_documents",
        documents=[Document(text, metadata={"title": title}) for title, text in texts.items()],
        verbose=False,
    )
    researcher.memory._embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    await researcher.conduct_research()
    assert await researcher.write_report() == "# Ferries\nThe ferry takes twenty minutes."
    assert "The ferry to the island takes twenty minutes." in researcher.context
    assert "euros" not in researcher.context
    chosen, planned, written = server.predictions
    assert [each["role"] for each in written.messages] == ["system", "user"]
    assert written.messages[0]["content"] == "You know ferries."
    assert researcher.context in written.messages[1]["content"]
    assert [each.config.get("maxTokens") for each in (chosen, planned, written)] == [4000, None, 6000]
    assert [each.config["temperature"] for each in (chosen, planned, written)] == [0.15, 0.4, 0.35]
    assert [each.config.get("contextLength") for each in server.loads if each.key == CHAT] == [16384]
    searched = {each.text for each in server.embedded_texts}
    assert searched == {*texts.values(), "time on the ferry", "How long does the ferry take?"}
    assert [each.path for each in collector.requests] == ["/search?query=How+long+does+the+ferry+take%3F"]
