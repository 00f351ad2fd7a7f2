"""The recipe about tracing, on a server that requires a token."""

import runpy
from pathlib import Path

import pytest

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator
from tests.cookbook.recipes import copy_cookbook, recipe_of

TOKEN = "sk-lm-Ab3dEf7h:0123456789abcdefghij"


def test_no_span_has_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = recipe_of("langchain_tracing")
    if recipe.missing:
        pytest.skip(recipe.missing)
    with Emulator(["any-model"], load=["any-model"], tokens=[TOKEN]) as server:
        monkeypatch.setenv(HOST_VARIABLE, server.address)
        monkeypatch.setenv("LM_API_TOKEN", TOKEN)
        monkeypatch.chdir(copy_cookbook(tmp_path))
        names = runpy.run_path(recipe.path.name)
    assert names["model"].api_token.get_secret_value() == TOKEN
    assert "any-model" in names["text"]
    assert TOKEN not in names["text"]
    assert TOKEN.partition(":")[2] not in names["text"]
