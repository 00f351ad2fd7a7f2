"""The examples on the LangChain pages run, and the statements about LangChain itself are still true."""

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
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
]
ROW = re.compile(r"^\| `(LMStudio\w+)` \| `(\w+)` \| (yes|no) \|$", re.MULTILINE)


def test_every_page_has_an_example() -> None:
    assert len(PAGES) == 10
    assert all("```python\n" in page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_on_a_page_runs(code: str, scripted: Emulator) -> None:
    assert "assert" in code or "create_agent" in code
    exec(compile(code, "page", "exec"), {"__name__": "page"})
    assert scripted.address


@pytest.mark.parametrize("init_model", [init_chat_model, init_embeddings])
def test_langchain_has_a_fixed_list_of_providers(init_model: object) -> None:
    """If this test fails, LangChain accepts other providers and `langchain_init_chat_model.md` is out of date."""
    assert callable(init_model)
    with pytest.raises(ValueError, match="openai"):
        init_model("lmstudio:smollm2-135m-instruct")


def test_the_reference_lists_the_langchain_error_and_whether_it_is_retryable() -> None:
    rows = ROW.findall((DOCS / "reference" / "langchain.md").read_text(encoding="utf-8"))
    for name, base, retryable in rows:
        error = both(getattr(errors, name)("no"))
        assert isinstance(error, getattr(core, base)), name
        assert isinstance(error, core.ModelError)
        assert error.is_retryable == (retryable == "yes"), name
    listed = {getattr(errors, name) for name, _, _ in rows}
    others = [mapped for base, mapped in _CLASSES.items() if base not in listed]
    assert others
    assert not any(issubclass(mapped, core.ModelError) and mapped.is_retryable for mapped in others)
