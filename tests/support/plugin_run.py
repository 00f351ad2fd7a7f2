"""A pytest run of its own with the plugin of the package."""

from collections.abc import Callable
from typing import TypeAlias

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

Run: TypeAlias = Callable[..., pytest.RunResult]

IMPORTED = ChatLMStudio, lms.llm
"""What the runs use. `pytester` takes out of `sys.modules` what is imported while it runs, so it is imported before."""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in this process, or another function of `pytester`, with this plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def _run(source: str, *settings: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest(
            "-q", "-p", "no:cacheprovider", "-p", "lmstudio_integrations.pytest_plugin", *settings
        )

    return _run
