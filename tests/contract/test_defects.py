"""Each check of the LangChain suite can fail: on an integration, see `docs/guides/comparison.md`, or on a defect."""

import os
from pathlib import Path

import pytest
from langchain.chat_models import base

from lmstudio_integrations.langchain import _registration
from tests.contract.frameworks import FRAMEWORKS, OURS, documented
from tests.contract.langchain.defects import DEFECTS, Defect
from tests.contract.suite import FAILED, PASSED

LANGCHAIN = FRAMEWORKS["langchain"]
FORK = "a used object works in a forked process and, afterwards, in its parent"
INIT = "`init_chat_model` makes the chat model from its provider's name"


def test_each_check_fails_on_an_integration_or_on_a_defect() -> None:
    table = documented()[LANGCHAIN.title]
    failing = {requirement for requirement, cells in table.items() if FAILED in cells}
    assert failing | {*DEFECTS, FORK, INIT} == {*LANGCHAIN.suite.checks}


def _result(requirement: str, defect: Defect) -> str:
    with LANGCHAIN.integrations[OURS]() as integration:
        return LANGCHAIN.suite.outcome(requirement, defect.applied(integration))[0]


@pytest.mark.sampled(15)
@pytest.mark.slow
@pytest.mark.parametrize("requirement", DEFECTS)
def test_the_check_fails_because_of_the_defect(requirement: str) -> None:
    assert _result(requirement, Defect()) == PASSED
    assert _result(requirement, DEFECTS[requirement]) == FAILED


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_the_check_of_forks_fails_if_the_child_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n"
    (tmp_path / "sitecustomize.py").write_text(failing, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert _result(FORK, Defect()) == FAILED


def test_the_check_of_init_chat_model_fails_without_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registration, "register", lambda: None)
    monkeypatch.delitem(base._BUILTIN_PROVIDERS, "lmstudio", raising=False)
    base._get_chat_model_creator.cache_clear()
    assert LANGCHAIN.outcome(OURS, INIT)[0] == FAILED
