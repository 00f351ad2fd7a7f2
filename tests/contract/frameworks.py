"""The frameworks that have a conformance suite, and the recorded results of each check.

A suite and its integrations are imported on first use.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.contract.suite import Suite


@dataclass(frozen=True)
class Framework:
    """A framework, its suite and its integrations.

    Attributes:
        key: The name of the modules.
        title: The name of the framework.
        core: Its package.
    """

    key: str
    title: str
    core: str

    @cached_property
    def suite(self) -> Suite[Any]:
        """The checks."""
        suite: Suite[Any] = import_module(f"tests.contract.{self.key}").SUITE
        return suite

    @cached_property
    def integrations(self) -> Mapping[str, Callable[[], AbstractContextManager[Any]]]:
        """Connects each integration to a server of its own, by the name of its package."""
        ours = getattr(import_module("tests.contract.ours"), self.key)
        return {OURS: ours, **import_module(f"tests.contract.comparison.{self.key}").PEERS}

    def outcome(self, name: str, requirement: str) -> tuple[str, str]:
        """Run one check of an integration on its own server; return the result and the reason."""
        with self.integrations[name]() as integration:
            return self.suite.outcome(requirement, integration)


FRAMEWORKS = {
    framework.key: framework
    for framework in (
        Framework("langchain", "LangChain", core="langchain-core"),
        Framework("llama_index", "LlamaIndex", core="llama-index-core"),
    )
}

OURS = "lmstudio-integrations"
"""The name of this package, among the integrations of every framework."""

RESULTS = Path(__file__).parents[2] / "tests/contract/comparison/results.json"


def recorded() -> dict[str, dict[str, list[str]]]:
    """Return the results of each check by framework, in the order of its integrations; this package is the first."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["results"]
    return {
        key: {requirement: marks.split() for requirement, marks in checks.items()} for key, checks in results.items()
    }
