"""What the LangChain pages of the site show runs, and what they say of LangChain itself is still so."""

import re
from pathlib import Path

import pytest
from langchain.chat_models import init_chat_model
from langchain.embeddings import init_embeddings
from langchain_core import exceptions as core

from lmstudio_integrations import errors
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain._errors import _CLASSES, both

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "how-to").glob("langchain_*.md"))
BLOCK = re.compile(r"^```python\n(?!--8<--)(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
]
ROW = re.compile(r"^\| `(LMStudio\w+)` \| `(\w+)` \| (yes|no) \|$", re.MULTILINE)


def test_every_page_shows_a_program() -> None:
    assert len(PAGES) == 10
    assert all("```python\n" in page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_on_a_page_runs(code: str, scripted: Emulator) -> None:
    assert "assert" in code or "create_agent" in code
    exec(compile(code, "page", "exec"), {"__name__": "page"})
    assert scripted.address


@pytest.mark.parametrize("make", [init_chat_model, init_embeddings])
def test_langchain_has_a_closed_list_of_providers(make: object) -> None:
    """A pinned gap: when this fails, `langchain_init_chat_model.md` is out of date."""
    assert callable(make)
    with pytest.raises(ValueError, match="openai"):
        make("lmstudio:smollm2-135m-instruct")


def test_the_reference_says_of_what_kind_errors_are() -> None:
    rows = ROW.findall((DOCS / "reference" / "langchain.md").read_text(encoding="utf-8"))
    for name, kind, again in rows:
        error = both(getattr(errors, name)("no"))
        assert isinstance(error, getattr(core, kind)), name
        assert isinstance(error, core.ModelError)
        assert error.is_retryable == (again == "yes"), name
    named = {getattr(errors, name) for name, _, _ in rows}
    others = [made for kind, made in _CLASSES.items() if kind not in named]
    assert others
    assert not any(issubclass(made, core.ModelError) and made.is_retryable for made in others)
