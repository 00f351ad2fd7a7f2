"""The pages on migration name only settings that this package takes, in the form in which it takes them."""

import ast
import math
import re
from collections.abc import Iterator
from keyword import iskeyword
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.config import LlmLoadModelConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES: dict[str, tuple[Any, Any]] = {
    "langchain/from-openai.md": (ChatLMStudio, langchain),
    "langchain/from-ollama.md": (ChatLMStudio, langchain),
    "llama-index/migrating.md": (LMStudio, llama_index),
}
ROW = re.compile(r"^\| (?P<theirs>`.*?) \| (?P<ours>.*) \|$(?!\n\| ---)", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
NO_SETTINGS = {"lmsi ls", "Settings.tokenizer = LMStudioTokenizer(llm)"}
MISSING_FILE = "ca_file"
"""The setting whose value is a file that nobody has here."""


def rows(page: str) -> Iterator[str]:
    """Yield what stands on our side of the tables with settings."""
    for row in ROW.finditer((DOCS / page).read_text("utf-8")):
        if not row["theirs"].startswith("`response_metadata`"):
            yield row["ours"]


def check(code: str, make: Any, module: Any) -> None:
    """Check what the page tells people to write: settings, a call of a class or a method, or a name."""
    if code in NO_SETTINGS or code.isupper() or iskeyword(code):
        return
    code = code.replace("{…}", "{}").replace("…", "None")
    known = {*make.model_fields, *make._call.request, *LlmLoadModelConfig.model_fields}
    settings = ast.parse(f"f({code})", mode="eval").body
    assert isinstance(settings, ast.Call)
    if settings.keywords:
        given = {each.arg: eval(ast.unparse(each.value), {"math": math}) for each in settings.keywords if each.arg}
        make(**{name: value for name, value in given.items() if name != MISSING_FILE})
        return
    (value,) = settings.args
    if isinstance(value, ast.Constant):
        return
    if isinstance(value, ast.Name):
        if value.id not in known and not hasattr(module, value.id):
            make(**{value.id: None})
        return
    calls = [each for each in ast.walk(value) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)]
    assert calls, code
    for call in calls:
        name = ast.unparse(call.func)
        target = getattr(module, name, None) or getattr(make, name, None)
        fields = {*getattr(target, "model_fields", known)}
        assert {each.arg for each in call.keywords} <= fields, code


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_is_accepted(page: str) -> None:
    checked = 0
    for ours in rows(page):
        for code in CODE.findall(ours):
            check(code, *PAGES[page])
            checked += 1
    assert checked > 10


def test_a_setting_that_is_none_is_found() -> None:
    with pytest.raises(ValueError, match="unknown setting 'extra'"):
        check("extra", ChatLMStudio, langchain)
    with pytest.raises(ValueError, match="did you mean 'max_tokens'"):
        check("num_predict=3", ChatLMStudio, langchain)
