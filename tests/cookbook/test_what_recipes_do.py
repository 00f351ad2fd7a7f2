"""What single recipes promise beyond that they run, checked in this process."""

import asyncio
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cookbook.recipe_runs import patient
from tests.cookbook.recipes import CATALOG, CHAT, EMBEDDING, copy_cookbook, other_key, recipe_of, renamed

pytestmark = [pytest.mark.slow, patient]
TOKEN = "sk-lm-Ab3dEf7h:0123456789abcdefghij"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """A server with scripted models, which are loaded. The working directory is a copy of the cookbook."""
    loaded = [other_key(CHAT), other_key(EMBEDDING)]
    with Emulator(catalog=renamed(CATALOG), load=loaded, tokens=[TOKEN]) as server:
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
        run_on(server, monkeypatch, tmp_path)
        yield server
    reset_default_client()


def run_on(server: Emulator, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let recipes run in a copy of the cookbook, on a server."""
    reset_default_client()
    monkeypatch.setenv(HOST_VARIABLE, server.address)
    monkeypatch.chdir(copy_cookbook(folder))


def run_here(name: str, run_name: str = "recipe") -> dict[str, Any]:
    """Run a recipe in this process; return its names."""
    recipe = recipe_of(name)
    if recipe.missing:
        pytest.skip(recipe.missing)
    return runpy.run_path(f"{name}.py", run_name=run_name)


def texts(server: Emulator) -> list[str]:
    """Return the texts that were embedded so far."""
    return [record.text for record in server.embedded_texts]


@pytest.mark.usefixtures("server")
def test_no_span_has_the_token_of_the_environment() -> None:
    names = run_here("langchain_tracing")
    assert names["model"].api_token.get_secret_value() == TOKEN
    assert "acme/" in names["text"]
    assert TOKEN.partition(":")[2] not in names["text"]


def test_chroma_embeds_a_chunk_once_and_after_a_change_only_what_is_new(server: Emulator, tmp_path: Path) -> None:
    recipe = run_here("langchain_rag_chroma")
    chunks = [chunk.page_content for path in recipe["files"] for chunk in recipe["read_pdf"](path).values()]
    questions = [text for text in texts(server) if text.endswith("?")]
    assert sorted(texts(server)) == sorted(chunks + questions)

    client = recipe["Client"](settings=recipe["Settings"](anonymized_telemetry=False))
    store = recipe["Chroma"]("changes", recipe["embeddings"], client=client)
    path = Path(shutil.copy("data/library.pdf", tmp_path))
    before = recipe["update"](store, path)
    shutil.copy("data/pool.pdf", path)
    after = recipe["update"](store, path)
    assert after != before
    assert len(store.get()["ids"]) == after
    assert len(texts(server)) == len(chunks + questions) + before + after
    client.close()


def test_qdrant_s_pipeline_embeds_each_document_once_and_again_only_after_a_change(server: Emulator) -> None:
    recipe = run_here("llama_index_qdrant_ingestion")
    first, question = texts(server)[:-1], texts(server)[-1]
    assert len(first) == len(recipe["texts"]) + 1
    assert recipe["texts"]["ferry"] in first[-1]
    assert question.endswith("?")
    assert recipe["embedded"].count == len(first) + 1, "the recipe counts what the server embedded"


def test_a_chat_responds_from_the_files_of_the_moment_and_embeds_each_paragraph_once(server: Emulator) -> None:
    recipe, file = run_here("gradio_chat"), Path("documents/ferry.txt")
    shutil.rmtree(file.parent, ignore_errors=True)
    history = [
        {"role": "user", "content": "Hello!", "metadata": None},
        {"role": "assistant", "content": "A source.", "metadata": {"title": "Sources"}},
        {"role": "assistant", "content": "Good morning.", "metadata": None},
    ]

    async def ask() -> tuple[str, list[str], list[Any]]:
        """Return the last prompt, the paragraphs that were embedded for it, and the last messages on the page."""
        before = len(texts(server))
        *_, shown = [each async for each in recipe["respond"]("When?", history)]
        *earlier, message = (each["content"] for each in server.predictions[-1].messages)
        assert earlier == ["Hello!", "Good morning."], "sources do not go back to the model"
        return message, [text for text in texts(server)[before:] if text != "When?"], shown

    async def main() -> None:
        assert (await ask())[:2] == ("When?", [])
        file.parent.mkdir()
        await asyncio.to_thread(file.write_text, "Every hour.\n\nFrom pier 7.")
        prompt, embedded, shown = await ask()
        assert sorted(embedded) == ["Every hour.", "From pier 7."]
        assert "Every hour." in prompt
        assert prompt.endswith("When?")
        assert shown[0].metadata["title"] == "Sources"
        await asyncio.to_thread(file.write_text, "Every hour.\n\nFrom pier 8.")
        prompt, embedded, _ = await ask()
        assert embedded == ["From pier 8."]
        assert "pier 7" not in prompt

    asyncio.run(main())


PLUGIN_IS_MISSING = 'This recipe needs mcp/files: Cannot find a plugin with the identifier "mcp/files".'


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("langchain_images", "This recipe needs vision; your models with it: none."),
        ("langchain_reasoning", "This recipe needs reasoning; your models: acme/plain."),
        ("langchain_cascade", "This recipe needs two language models; loaded: acme/plain."),
        ("langchain_sql", "The model did not run SQL; take a larger model."),
        ("langchain_mcp", "The model did not look up ferries; take a larger model."),
        ("langchain_lm_studio_tools", PLUGIN_IS_MISSING),
        ("llama_index_lm_studio_tools", PLUGIN_IS_MISSING),
    ],
)
def test_a_recipe_says_in_one_sentence_what_the_loaded_model_lacks(
    name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Emulator([ModelEntry(key="acme/plain", vision=False)], load=["acme/plain"]) as server:
        run_on(server, monkeypatch, tmp_path)
        with pytest.raises(SystemExit) as ended:
            run_here(name, "__main__")
    reset_default_client()
    assert ended.value.code == sentence
