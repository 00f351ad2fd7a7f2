"""Uses each interface of an installed wheel once, against the emulator of the same wheel.

Run as a script with the name of an interface, in an environment that has only the wheel with the interface's extra;
`tests/release/run` does. It imports nothing else of this folder.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import lmstudio_integrations
from lmstudio_integrations.emulator import Emulator

CHAT_MODEL = "qwen2.5-7b-instruct"
EMBEDDING_MODEL = "text-embedding-nomic-embed-text-v1.5"
QUESTION = "When does the ferry leave?"


def use_native_client(host: str) -> None:
    with lmstudio_integrations.Client(host) as client:
        model = client.llm.model(CHAT_MODEL)
        assert "ferry" in model.respond(QUESTION).content
        assert "ferry" in "".join(fragment.content for fragment in model.respond_stream(QUESTION))
        assert any(client.embedding.model(EMBEDDING_MODEL, load_policy="explicit").embed(QUESTION))


def use_langchain(host: str) -> None:
    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM

    assert "ferry" in "".join(chunk.text for chunk in ChatLMStudio(model=CHAT_MODEL, host=host).stream(QUESTION))
    assert LMStudioLLM(model=CHAT_MODEL, host=host).invoke(QUESTION)
    assert any(LMStudioEmbeddings(model=EMBEDDING_MODEL, host=host).embed_query(QUESTION))


def use_llama_index(host: str) -> None:
    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    model = LMStudio(model=CHAT_MODEL, host=host)
    assert "ferry" in "".join(chunk.delta or "" for chunk in model.stream_complete(QUESTION))
    assert any(LMStudioEmbedding(model_name=EMBEDDING_MODEL, host=host).get_query_embedding(QUESTION))


INTERFACES: Mapping[str, Callable[[str], None]] = {
    "native": use_native_client,
    "langchain": use_langchain,
    "llama-index": use_llama_index,
}


def use(interface: str) -> None:
    """Start an emulator and use an interface.

    Raises:
        AssertionError: If a response is not that of the emulator's models.
    """
    with Emulator([CHAT_MODEL, EMBEDDING_MODEL]) as emulator:
        INTERFACES[interface](emulator.address)
        assert emulator.predictions


def main(interface: str) -> None:
    installed = Path(lmstudio_integrations.__file__).parent
    if installed.parent in Path(__file__).parents:
        sys.exit(f"this uses the checkout, {installed}, and not a wheel")
    use(interface)
    print(f"{interface}: works, from {installed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
