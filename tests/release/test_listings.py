"""What is sent to those who list packages has the form that they ask for, and names what exists."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations._support.installation import NAME
from lmstudio_integrations.langchain import middleware
from tests.langchain import test_standard
from tools import ROOT
from tools.address import urls

FOLDER = ROOT / ".github" / "listings"
OF_LANGCHAIN = sorted((FOLDER / "langchain").glob("*.md"))

LANGCHAIN_FORM = {
    "Display or class name": r"[A-Z]\w+",
    "Language": "Python",
    "Component type": "chat|tools|middleware|embeddings|retrievers|llms",
    "PyPI package name": NAME,
    "npm package name": "_No response_",
    "Docs URL": re.escape(urls()["Documentation"]) + ".+",
    "Source repository": rf"OWNER/{NAME}",
    "Short provider description": r"[A-Z][^\n]*\.",
    "Capability flags (optional)": r"_No response_|(\w+: (true|false)\n?)+",
    "Confirmations": r"- \[x\] The package is already published on PyPI and/or npm\.",
}
"""The form `06-integration-submission.yml` of `langchain-ai/docs` in November 2026, and what we enter."""

LLAMA_INDEX_FORM = ["Feature Description", "Reason", "Value of Feature"]
"""The fields of the form `feature-form.yml` of `run-llama/llama_index` in November 2026."""


def sections(path: Path) -> dict[str, str]:
    """Return what a text says under each of its headings."""
    _, *parts = re.split(r"^### (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


def pages(text: str) -> Iterator[Path]:
    """Yield the sources of the pages of the site that a text links."""
    for path in re.findall(re.escape(urls()["Documentation"]) + r"([\w/-]*)/", text):
        yield ROOT / "docs" / f"{path}.md"


@pytest.mark.parametrize("path", OF_LANGCHAIN, ids=lambda path: path.stem)
def test_a_listing_of_langchain_has_the_fields_of_the_form(path: Path) -> None:
    fields = sections(path)
    assert list(fields) == list(LANGCHAIN_FORM)
    assert not [name for name, value in fields.items() if not re.fullmatch(LANGCHAIN_FORM[name], value)]
    assert fields["Display or class name"] == path.stem
    assert path.stem in {*dir(langchain), *dir(middleware)}
    assert all(page.exists() for page in pages(fields["Docs URL"]))


def test_the_flags_are_those_of_the_standard_tests() -> None:
    tests = test_standard.TestChatIntegration()
    flags = {
        "stream": True,
        "tool_calling": tests.has_tool_calling,
        "structured_output": tests.has_structured_output,
        "multimodal": tests.supports_image_inputs,
    }
    assert sections(FOLDER / "langchain/ChatLMStudio.md")["Capability flags (optional)"].splitlines() == [
        f"{name}: {str(value).lower()}" for name, value in flags.items()
    ]


def test_the_request_to_llama_index_has_the_fields_of_the_form_and_the_classes_of_the_package() -> None:
    text = (FOLDER / "llama_index.md").read_text(encoding="utf-8")
    assert list(sections(FOLDER / "llama_index.md")) == LLAMA_INDEX_FORM
    assert all(page.exists() for page in pages(text))
    llamahub = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["llamahub"]
    assert llamahub["import_path"] == llama_index.__name__
    assert llamahub["class_authors"].keys() <= {*dir(llama_index)}
    assert llamahub["class_authors"].keys() == {*re.findall(r"`(LMStudio\w*)`", text)}
