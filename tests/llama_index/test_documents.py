"""The examples on the LlamaIndex pages run."""

from collections.abc import Iterator

import pytest
from llama_index.core import Settings

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalog import BUNDLED, parse_model
from tests.docs.snippets import ROOT, blocks

NAMES = ("agents", "ingestion", "migrating", "query-engine", "structured-output")
PAGES = [ROOT / f"docs/llama-index/{name}.md" for name in NAMES]
EXAMPLES = [(page.stem, code) for page in PAGES for code in blocks(page.relative_to(ROOT).as_posix())]


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with scripted models under the keys of the bundled ones; LlamaIndex's default models are unset."""
    for name in ("_llm", "_embed_model", "_tokenizer", "_node_parser", "_transformations"):
        monkeypatch.setattr(Settings, name, None)
    monkeypatch.setattr("llama_index.core.global_tokenizer", None)
    with Emulator([parse_model(key, scripted=True) for key in BUNDLED]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        yield server


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_an_example_on_a_page_runs(page: str, code: str, bundled: Emulator) -> None:
    exec(compile(code, page, "exec"), {"__name__": page})
    assert bundled.address
