"""A question is answered from papers, with citations: by our models, and by an address in OpenAI's form."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Collector, Received, Serve

pytestmark = pytest.mark.neighbour(
    "paper-qa",
    "fhlmi",
    "litellm",
    group="applications",
    job="answers a question from papers, with citations",
    settings="`Docs.aadd` and `Docs.aquery` take an `lmi.LLMModel` and an `lmi.EmbeddingModel`: subclasses of a few "
    "lines, whose `acompletion` and `embed_documents` call ours. `ask` and its agent take LiteLLM's names only: "
    '`Settings(llm="lm_studio/KEY", summary_llm="lm_studio/KEY", embedding="lm_studio/KEY")` with '
    "`LM_STUDIO_API_BASE=http://localhost:1234/v1` and any `LM_STUDIO_API_KEY` uses the OpenAI-compatible API of "
    "LM Studio. It counts tokens with tiktoken, which downloads `cl100k_base`: without internet, "
    "`TIKTOKEN_CACHE_DIR` is the folder `litellm_core_utils/tokenizers` of litellm",
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    weekly=True,
)

PAPERS = {
    "ferry": "The ferry to the island takes twenty minutes. It sails all day.",
    "pool": "The swimming pool costs four euros. It is open all day.",
}
SUMMARY = '{"summary": "It takes twenty minutes.", "relevance_score": 9}'


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take tokenizers from litellm."""
    litellm = find_spec("litellm")
    assert litellm is not None
    folder = Path(str(litellm.origin)).parent / "litellm_core_utils/tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


async def ask(folder: Path, names: dict[str, str], models: dict[str, Any]) -> Any:
    from paperqa import Docs, Settings

    parsing = {"use_doc_details": False, "multimodal": False}  # looks nothing up in the internet
    settings = Settings(answer={"evidence_k": 1}, parsing=parsing, **names)
    docs = Docs()
    for name, text in PAPERS.items():
        (folder / f"{name}.txt").write_text(text)
        adding = {key: value for key, value in models.items() if key != "summary_llm_model"}
        await docs.aadd(folder / f"{name}.txt", f"Ada, {name}, 2026", name, settings=settings, **adding)
    return await docs.aquery("How long does the ferry take?", settings, **models)


async def test_our_models_answer(serve: Serve, tmp_path: Path) -> None:
    from aviary.core import Message
    from lmi import EmbeddingModel, LLMModel, LLMResult

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    class Chat(LLMModel):
        async def acompletion(self, messages: list[Message], **settings: Any) -> list[LLMResult]:
            assert settings == {"n": 1, "tools": None}
            response = await ChatLMStudio(model=self.name).ainvoke(
                [(each.role, each.content or "") for each in messages]
            )
            usage = response.usage_metadata or {}
            counts = {"prompt_count": usage["input_tokens"], "completion_count": usage["output_tokens"]}
            return [LLMResult(model=self.name, prompt=messages, text=response.text, **counts)]

    class Embedding(EmbeddingModel):
        async def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return await LMStudioEmbeddings(model=self.name).aembed_documents(texts)

    server = serve(
        {"when": {"last": "^Excerpt"}, "then": SUMMARY},
        {"when": {"last": "Valid Keys"}, "then": "Twenty minutes."},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    chat = Chat(name=CHAT)
    models = {"llm_model": chat, "summary_llm_model": chat, "embedding_model": Embedding(name=REAL_EMBEDDING)}
    session = await ask(tmp_path, {}, models)
    assert session.answer == "Twenty minutes."
    assert [each.context for each in session.contexts] == ["It takes twenty minutes."]
    summarized, answered = server.predictions
    assert [each["role"] for each in summarized.messages] == ["system", "user"]
    assert PAPERS["ferry"] in summarized.messages[1]["content"]
    assert "It takes twenty minutes." in answered.messages[1]["content"]
    sent = [
        sum(each.stats[name] for each in server.predictions) for name in ("promptTokensCount", "predictedTokensCount")
    ]
    assert session.token_counts == {CHAT: sent}
    texts = [each.text for each in server.embedded_texts]
    assert texts == [*PAPERS.values(), "How long does the ferry take?"]


async def test_an_address_in_openais_form_answers(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Received) -> tuple[int, Any]:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if request.path == "/v1/embeddings":
            texts = request.json["input"]
            vectors = [[float("ferry" in each), 0.1] for each in texts]
            data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(vectors)]
            return 200, {"object": "list", "model": "e", "data": data, "usage": usage}
        text = SUMMARY if "Excerpt" in request.json["messages"][1]["content"] else "Twenty minutes."
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "c",
            "choices": [choice],
            "usage": usage,
        }

    collector.answer = answer
    monkeypatch.setenv("LM_STUDIO_API_BASE", f"{collector.address}/v1")
    monkeypatch.setenv("LM_STUDIO_API_KEY", "none")
    chat = f"lm_studio/{CHAT}"
    session = await ask(tmp_path, {"llm": chat, "summary_llm": chat, "embedding": f"lm_studio/{REAL_EMBEDDING}"}, {})
    assert session.answer == "Twenty minutes."
    asked = [each for each in collector.requests if each.path == "/v1/chat/completions"]
    assert [each.json["model"] for each in asked] == [CHAT, CHAT]
    assert [each.json.get("max_tokens") for each in asked] == [None, None]
