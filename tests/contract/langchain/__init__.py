"""A conformance suite for LangChain integrations: one check for each requirement.

`langchain-tests` checks that a chat model has LangChain's interface. These checks continue where it ends: what reaches
the server, cancellation, event loops, caches, secrets, errors.
"""

from importlib import import_module

from tests.contract.langchain.integration import SUITE

__all__ = ["SUITE"]

# In the order of the page.
for _name in (
    "responses",
    "messages",
    "sent_reasoning",
    "settings",
    "tools",
    "structured",
    "tracing",
    "calls",
    "failures",
    "objects",
    "embeddings",
):
    import_module(f"{__name__}.{_name}")
