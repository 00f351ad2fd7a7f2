"""LangChain makes our model from a string, unless the name alone selects another provider."""

import pytest
from neighbour_servers import CHAT, EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langchain",
    "langchain-openai",
    group="agents",
    job="`init_chat_model` and `init_embeddings` with `lmstudio:KEY`, also with the model as a configurable field",
    settings="`register()` first, and `model_provider='lmstudio'` beside a configurable model: with `'lmstudio:KEY'` "
    "the provider is part of the name, so a name from the configuration selects one: `gpt-oss-20b` goes to OpenAI",
)

PROMPT = "What must not leave this machine?"


def test_strings_make_our_models(serve: Serve) -> None:
    from langchain.chat_models import init_chat_model
    from langchain.embeddings import init_embeddings

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, register

    register()
    server = serve({"then": "At pier 7."}, models=["openai/gpt-oss-20b"])
    for model in (
        init_chat_model(f"lmstudio:{CHAT}", max_tokens=20),
        init_chat_model("openai/gpt-oss-20b", model_provider="lmstudio"),
    ):
        assert isinstance(model, ChatLMStudio)
        model.invoke(PROMPT)
    assert [each.model for each in server.predictions] == [CHAT, "openai/gpt-oss-20b"]
    assert isinstance(init_embeddings(f"lmstudio:{EMBEDDING}"), LMStudioEmbeddings)
    with pytest.raises(ValueError, match="Unable to infer model provider"):
        init_chat_model("openai/gpt-oss-20b")


def test_a_configured_model_keeps_the_provider_that_stands_beside_it(
    serve: Serve, outward: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain.chat_models import init_chat_model
    from langchain_core.runnables import RunnableConfig

    from lmstudio_integrations.langchain import register

    register()
    server = serve(models=["gpt-oss-20b"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    other = RunnableConfig(configurable={"model": "gpt-oss-20b"})
    beside = init_chat_model(CHAT, model_provider="lmstudio", configurable_fields=("model",))
    assert [beside.invoke(PROMPT, config).response_metadata["model_provider"] for config in (None, other)] == [
        "lmstudio"
    ] * 2
    inside = init_chat_model(f"lmstudio:{CHAT}", configurable_fields=("model",), max_retries=0)
    with pytest.raises(Exception, match="Connection error"):
        inside.invoke(PROMPT, other)
    assert set(outward) == {"socket.getaddrinfo api.openai.com"}
    outward.clear()
    full = RunnableConfig(configurable={"model": "lmstudio:gpt-oss-20b"})
    inside.invoke(PROMPT, full)
    assert [each.model for each in server.predictions] == [CHAT, "gpt-oss-20b", "gpt-oss-20b"]
