"""The recipe `gradio_chat.py` without a browser: it responds from the files that are in the folder at that moment."""

import asyncio
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.cookbook.recipe_runs import patient
from tests.cookbook.recipes import recipe_of

RECIPE = recipe_of("gradio_chat")
pytestmark = [pytest.mark.slow, patient, pytest.mark.skipif(bool(RECIPE.missing), reason=RECIPE.missing)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    """A server with a language model and an embedding model; the working directory is empty."""
    models = [ModelEntry(key="acme/chat"), ModelEntry(key="acme/vectors", kind="embedding")]
    with Emulator(models, load=[each.key for each in models]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        monkeypatch.chdir(tmp_path)
        yield server


def test_the_prompt_has_what_is_in_the_folder_and_each_paragraph_is_embedded_once(
    server: Emulator, tmp_path: Path
) -> None:
    recipe = runpy.run_path(str(RECIPE.path))
    folder = tmp_path / "documents"

    async def ask() -> tuple[str, list[str]]:
        """Return the last prompt, and the paragraphs that were embedded for it."""
        before = len(server.embedded_texts)
        assert [each async for each in recipe["respond"]("When?", [])]
        (message,) = server.predictions[-1].messages
        return message["content"], [each.text for each in server.embedded_texts[before:] if each.text != "When?"]

    async def main() -> None:
        assert await ask() == ("When?", [])
        folder.mkdir()
        (folder / "ferry.txt").write_text("Every hour.\n\nFrom pier 7.", encoding="utf-8")
        prompt, embedded = await ask()
        assert sorted(embedded) == ["Every hour.", "From pier 7."]
        assert "Every hour." in prompt
        assert prompt.endswith("When?")

        (folder / "ferry.txt").write_text("Every hour.\n\nFrom pier 8.", encoding="utf-8")
        prompt, embedded = await ask()
        assert embedded == ["From pier 8."]
        assert "pier 8" in prompt
        assert "pier 7" not in prompt

        (folder / "ferry.txt").unlink()
        assert await ask() == ("When?", [])

    asyncio.run(main())


def test_sources_and_reasoning_are_folded_and_do_not_go_back_to_the_model(server: Emulator, tmp_path: Path) -> None:
    recipe = runpy.run_path(str(RECIPE.path))
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/ferry.txt").write_text("Every hour.", encoding="utf-8")
    history = [
        {"role": "user", "content": "Hello!", "metadata": None},
        {"role": "assistant", "content": "A source.", "metadata": {"title": "Sources"}},
        {"role": "assistant", "content": "Good morning.", "metadata": None},
    ]

    async def main() -> None:
        *_, (source, text) = [each async for each in recipe["respond"]("When?", history)]
        assert (source.metadata["title"], source.content) == ("Sources", "Every hour.")
        assert isinstance(text, str)

    asyncio.run(main())
    contents = [each["content"] for each in server.predictions[-1].messages]
    assert contents[:-1] == ["Hello!", "Good morning."]
