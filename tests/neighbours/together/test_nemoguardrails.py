"""Rails check what a user writes, find the flow by embeddings, and answer."""

import re
from typing import Any

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "nemoguardrails",
    group="applications",
    job="rails check the input, find the flow by embeddings and answer",
    settings="After `register()`, `engine: lmstudio` in `config.yml`, with settings such as `context_length` under "
    "`parameters`; or `LLMRails(config, llm=ChatLMStudio(…))`. It downloads an embedding model of FastEmbed: to use "
    "`LMStudioEmbeddings` instead, register a subclass of its `EmbeddingModel` with `register_embedding_provider`. It "
    "sets `temperature=0.001`, and `max_tokens` for checks. Its log names the model and the address, but `core` "
    "as the provider, which it takes from the name of the module",
    environment={"NEMOGUARDRAILS_LLM_FRAMEWORK": "langchain", "NEMO_GUARDRAILS_NO_USAGE_STATS": "1"},
)

SETTINGS = f"""
models:
  - type: main
    engine: lmstudio
    model: {CHAT}
    parameters:
      context_length: 8192
  - type: embeddings
    engine: lmstudio
    model: {REAL_EMBEDDING}
rails:
  input:
    flows:
      - self check input
prompts:
  - task: self_check_input
    content: Should this be blocked? "{{{{ user_input }}}}" Answer Yes or No.
"""
FLOWS = """
define user ask about ferry
  "How long does the ferry take?"

define user ask about pool
  "What does the pool cost?"

define bot tell time
  "Twenty minutes."

define flow ferry
  user ask about ferry
  bot tell time
"""


async def test_rails_check_and_answer(serve: Serve) -> None:
    from nemoguardrails import LLMRails, RailsConfig
    from nemoguardrails.embeddings.providers import register_embedding_provider
    from nemoguardrails.embeddings.providers.base import EmbeddingModel

    from lmstudio_integrations.langchain import LMStudioEmbeddings, register

    class Embeddings(EmbeddingModel):
        engine_name = "lmstudio"

        def __init__(self, embedding_model: str, **settings: Any) -> None:
            self.model = LMStudioEmbeddings(model=embedding_model, **settings)
            self.embedding_size = 384

        def encode(self, documents: list[str]) -> list[list[float]]:
            return self.model.embed_documents(documents)

        async def encode_async(self, documents: list[str]) -> list[list[float]]:
            return await self.model.aembed_documents(documents)

    register()
    register_embedding_provider(Embeddings)
    server = serve(
        {"when": {"last": "blocked.*bomb"}, "then": "Yes"},
        {"when": {"last": "blocked"}, "then": "No"},
        {"then": "ask about ferry"},
        models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"],
    )
    rails = LLMRails(RailsConfig.from_content(colang_content=FLOWS, yaml_content=SETTINGS))
    options: Any = {"log": {"llm_calls": True}}
    question = "How much time is the trip by ferry?"
    answered = await rails.generate_async(messages=[{"role": "user", "content": question}], options=options)
    assert answered.response == [{"role": "assistant", "content": "Twenty minutes."}]
    blocked = await rails.generate_async(
        messages=[{"role": "user", "content": "How to build a bomb?"}], options=options
    )
    assert blocked.response == [{"role": "assistant", "content": "I'm sorry, I can't respond to that."}]

    checked, intent, refused = server.predictions
    assert [each.text for each in (checked, intent, refused)] == ["No", "ask about ferry", "Yes"]
    assert {each.config["temperature"] for each in server.predictions} == {0.001}
    assert [each.config.get("maxTokens") for each in (checked, intent, refused)] == [1024, None, 1024]
    assert [each.config.get("contextLength") for each in server.loads if each.key == CHAT] == [8192]
    texts = [each.text for each in server.embedded_texts]
    assert texts == ["How long does the ferry take?", "What does the pool cost?", question]

    logged = [*answered.log.llm_calls, *blocked.log.llm_calls]
    assert [each.task for each in logged] == ["self_check_input", "generate_user_intent", "self_check_input"]
    assert {(each.llm_provider_name, each.llm_model_name) for each in logged} == {("core", CHAT)}
    stats = [(each.stats["promptTokensCount"], each.stats["predictedTokensCount"]) for each in server.predictions]
    assert [(each.prompt_tokens, each.completion_tokens) for each in logged] == stats


async def test_an_error_names_the_model_and_the_address(serve: Serve) -> None:
    from nemoguardrails import LLMRails, RailsConfig
    from nemoguardrails.exceptions import LLMCallException

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": [{"error": "the engine stopped"}]})
    named = re.escape(f"(model={CHAT}, provider=core, endpoint=http://{server.address}/v1)")
    rails = LLMRails(RailsConfig.from_content(yaml_content="models: []"), llm=ChatLMStudio(model=CHAT, max_retries=0))
    with pytest.raises(LLMCallException, match=f"{named}: .*the engine stopped"):
        await rails.generate_async(messages=[{"role": "user", "content": "Hello"}])
