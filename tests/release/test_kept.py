"""What users keep from one version to the next: `kept/` has what each version wrote, and this one reads it.

`python -m tests.release.test_kept` writes the files of this version. Run it with each release, and not before.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps, loads
from llama_index.core.embeddings.loading import load_embed_model
from llama_index.core.llms.loading import load_llm

from lmstudio_integrations import __version__
from lmstudio_integrations.cassettes import use_cassette
from lmstudio_integrations.cli._serve import build_catalog
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding, register
from tools import ROOT

FOLDER = Path(__file__).parent / "kept"
VERSIONS = sorted(path.name for path in FOLDER.glob("*"))

CATALOG = "catalog.toml"
CASSETTE = "conversation.lms.jsonl"
CACHE = "cache.json"
ADAPTERS = "adapters.json"

PORT = 14321
"""Where the adapters look for a server: the key of a cached response has its address."""

QUESTION = "From which pier does the ferry leave?"
ANSWER = "It leaves from pier 7."
MODELS = (
    ModelEntry(
        key="chat",
        rules=(
            {"when": {"role": "tool"}, "then": [{"text": "It leaves from {last}."}]},
            {"when": {"tools": ["pier"]}, "then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
            {"then": [{"text": ANSWER}]},
        ),
    ),
    ModelEntry(key="vectors", kind="embedding", embedding_length=4),
)


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"pier {len(destination) + 1}"


def converse(address: str) -> list[Any]:
    """Return what models say over each way that a cassette has."""
    chat = ChatLMStudio(host=address, model="chat", context_length=4096, temperature=0)
    llm = LMStudio(host=address, model="chat", max_tokens=100)
    schema = {"title": "Place", "type": "object", "properties": {"pier": {"type": "string"}}, "required": ["pier"]}
    return [
        chat.invoke(QUESTION).text,
        "".join(chunk.text for chunk in chat.stream(QUESTION)),
        chat.bind_tools([pier]).invoke(QUESTION).tool_calls[0]["args"],
        chat.with_structured_output(schema).invoke(QUESTION),
        llm.complete(QUESTION).text,
        chat.get_num_tokens(QUESTION),
        LMStudioEmbeddings(host=address, model="vectors").embed_query(QUESTION),
    ]


def adapters() -> tuple[ChatLMStudio, LMStudio, LMStudioEmbedding]:
    """Return objects with settings of each kind, that nobody answers."""
    settings: dict[str, Any] = {"host": f"127.0.0.1:{PORT}", "ttl": 600, "timeout": 5, "max_retries": 0}
    return (
        ChatLMStudio(model="chat", temperature=0, stop=["x"], context_length=4096, **settings),
        LMStudio(model="chat", max_tokens=100, seed=7, load_config={"gpu": {"ratio": 0.5}}, **settings),
        LMStudioEmbedding(model_name="vectors", query_instruction="query: ", **settings),
    )


def write(folder: Path) -> None:
    """Write what this version keeps for its users."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "cookbook/catalog.toml", folder / CATALOG)
    cache, (chat, llm, embedding) = InMemoryCache(), adapters()
    with Emulator(MODELS, port=PORT) as server:
        with use_cassette(folder / CASSETTE, "once", server=server.address) as recorded:
            converse(recorded.address)
        chat.model_copy(update={"cache": cache}).invoke(QUESTION)
    entries = [(prompt, settings, dumps(found)) for (prompt, settings), found in cache._cache.items()]
    kept = {"ChatLMStudio": dumps(chat), "LMStudio": llm.to_dict(), "LMStudioEmbedding": embedding.to_dict()}
    for name, content in ((CACHE, entries), (ADAPTERS, kept)):
        (folder / name).write_text(f"{json.dumps(content, indent=1, sort_keys=True)}\n", encoding="utf-8")


def test_this_version_has_kept_something() -> None:
    assert __version__ in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_catalog_has_the_same_models(version: str) -> None:
    catalog = build_catalog(path=FOLDER / version / CATALOG)
    assert {"qwen/qwen3-4b", "scripted-tools"} < {model.key for model in catalog.models}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cassette_answers_the_same_program(version: str) -> None:
    with use_cassette(FOLDER / version / CASSETTE, "none") as replayed:
        text, streamed, arguments, structured, completed, tokens, vector = converse(replayed.address)
    assert (text, streamed, completed) == (ANSWER, ANSWER, ANSWER)
    assert (arguments, structured.keys(), tokens > 0, len(vector)) == ({"destination": "island"}, {"pier"}, True, 4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_cached_response_is_found(version: str) -> None:
    """No server is asked: none is there."""
    cache = InMemoryCache()
    for prompt, settings, found in json.loads((FOLDER / version / CACHE).read_text(encoding="utf-8")):
        cache.update(prompt, settings, loads(found, allowed_objects="core"))
    chat, _, _ = adapters()
    chat.cache = cache
    assert chat.invoke(QUESTION).text == ANSWER


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialized_adapters_have_the_same_settings(version: str) -> None:
    kept, path = json.loads((FOLDER / version / ADAPTERS).read_text(encoding="utf-8")), tuple(ChatLMStudio.lc_id())
    register()
    chat, llm, embedding = adapters()
    mappings: dict[str, Any] = {
        "additional_import_mappings": {path: path},
        "valid_namespaces": ["lmstudio_integrations"],
    }
    assert loads(kept["ChatLMStudio"], allowed_objects="core", **mappings) == chat
    assert load_llm(kept["LMStudio"]).to_dict() == llm.to_dict()
    assert load_embed_model(kept["LMStudioEmbedding"]).to_dict() == embedding.to_dict()


if __name__ == "__main__":
    write(FOLDER / __version__)
