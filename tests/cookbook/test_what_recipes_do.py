"""What single recipes promise beyond that they run, checked in this process."""

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.api.official import reset_default_client
from lmstudio_integrations.emulator import Emulator
from tests.cookbook.recipe_runs import patient
from tests.cookbook.recipes import CATALOG, CHAT, copy_cookbook, recipe_of, scripted

pytestmark = [pytest.mark.slow, patient]
TOKEN = "sk-lm-Ab3dEf7h:0123456789abcdefghij"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """A server with scripted models. The working directory is a copy of the cookbook."""
    with Emulator(catalog=scripted(CATALOG), tokens=[TOKEN]) as server:
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        monkeypatch.chdir(copy_cookbook(tmp_path))
        reset_default_client()
        yield server
    reset_default_client()


def run_here(name: str) -> dict[str, Any]:
    """Run a recipe in this process; return its names."""
    recipe = recipe_of(name)
    if recipe.missing:
        pytest.skip(recipe.missing)
    return runpy.run_path(f"{name}.py")


def texts(server: Emulator) -> list[str]:
    """Return the texts that were embedded so far."""
    return [record.text for record in server.embedded_texts]


@pytest.mark.usefixtures("server")
def test_no_span_has_the_token_of_the_environment() -> None:
    names = run_here("langchain_tracing")
    assert names["model"].api_token.get_secret_value() == TOKEN
    assert CHAT in names["text"]
    assert "Why is the sky blue?" in names["text"]
    assert TOKEN.partition(":")[2] not in names["text"]


def test_chroma_embeds_a_chunk_once_and_after_a_change_only_what_is_new(server: Emulator, tmp_path: Path) -> None:
    recipe = run_here("langchain_rag_chroma")
    chunks = [chunk.page_content for path in recipe["files"] for chunk in recipe["read_pdf"](path).values()]
    questions = [text for text in texts(server) if text.endswith("?")]
    assert sorted(texts(server)) == sorted(chunks + questions)

    store = recipe["Chroma"]("changes", recipe["embeddings"], persist_directory="output/changes")
    path = Path(shutil.copy("data/library.pdf", tmp_path))
    before = recipe["update"](store, path)
    shutil.copy("data/pool.pdf", path)
    after = recipe["update"](store, path)
    assert after != before
    assert len(store.get()["ids"]) == after
    assert len(texts(server)) == len(chunks + questions) + before + after


def test_qdrant_s_pipeline_embeds_each_document_once_and_again_only_after_a_change(server: Emulator) -> None:
    recipe = run_here("llama_index_qdrant_ingestion")
    first, question = texts(server)[:-1], texts(server)[-1]
    assert len(first) == len(recipe["texts"]) + 1
    assert recipe["texts"]["ferry"] in first[-1]
    assert question.endswith("?")
