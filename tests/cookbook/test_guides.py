"""The guides in the docstrings of the classes: short, and their example runs."""

import ast
import asyncio
import inspect
import re

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.docs.snippets import ROOT, in_text

PAGE = re.compile(r"`(docs/[\w/-]+\.md)`")

ADAPTERS = (
    ChatLMStudio,
    LMStudioLLM,
    LMStudioEmbeddings,
    langchain.LMStudioReranker,
    langchain.LMStudioClassifier,
    langchain.LMStudioToolkit,
    LMStudio,
    LMStudioEmbedding,
    llama_index.LMStudioReranker,
    llama_index.LMStudioToolSpec,
)
CLASSES = [pytest.param(kind, id=kind.__name__) for kind in (*ADAPTERS, lms.Client, lms.AsyncClient)]
_LANGCHAIN = (ChatLMStudio, LMStudioLLM, LMStudioEmbeddings, langchain.LMStudioReranker, langchain.LMStudioClassifier)
EXTRAS = {
    **dict.fromkeys(_LANGCHAIN, "langchain"),
    **dict.fromkeys((LMStudio, LMStudioEmbedding, llama_index.LMStudioReranker), "llama-index"),
}


def guide(kind: type) -> str:
    """Return the docstring of a class, as `help` shows it before the settings."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\nSettings:\n")[0]


def examples(kind: type) -> list[str]:
    """Return the examples of a guide."""
    return [each.code for each in in_text(guide(kind), kind.__name__)]


@pytest.mark.slow
@pytest.mark.usefixtures("framework_defaults")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("kind", CLASSES)
def test_the_example_of_a_guide_runs(kind: type, scripted: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = examples(kind)
    assert all(len(line) <= 88 for line in cell.splitlines())
    awaited = eval(compile(cell, kind.__name__, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"__name__": "__main__"})
    assert (awaited is not None) == (kind is lms.AsyncClient)
    if awaited is not None:
        asyncio.run(awaited)
    assert capsys.readouterr().out.strip()
    assert scripted.predictions or scripted.embedded_texts


@pytest.mark.parametrize(("kind", "extra"), [pytest.param(*item, id=item[0].__name__) for item in EXTRAS.items()])
def test_a_guide_names_the_extra_and_the_page(kind: type, extra: str) -> None:
    assert f'pip install "lmstudio-integrations[{extra}]"' in guide(kind)
    (page,) = PAGE.findall(guide(kind))
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"`{kind.__name__}`" in text
    assert re.search(rf"^from lmstudio_integrations\S* import .*\b{kind.__name__}\b", text, re.MULTILINE)
