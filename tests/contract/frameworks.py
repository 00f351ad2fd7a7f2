"""The frameworks that have a conformance suite. A suite and its integrations are imported on first use."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
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
        found: Mapping[str, Any] = import_module(f"tests.contract.peers.{self.key}").INTEGRATIONS
        return found


FRAMEWORKS = {
    framework.key: framework
    for framework in (
        Framework("langchain", "LangChain", core="langchain-core"),
        Framework("llama_index", "LlamaIndex", core="llama-index-core"),
    )
}

OURS = "lmstudio-integrations"
"""The name of this package, among the integrations of every framework."""
