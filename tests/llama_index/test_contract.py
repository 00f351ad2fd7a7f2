"""This package passes every check of the conformance suite."""

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.llama_index import contract
from tests.llama_index.scripted_server import Server

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore:is_running called from within a step"
)


def integration_on(server: Server) -> contract.Integration:
    """Connect this package's classes to a server."""

    def embedding(*, instructed: bool = False, **settings: Any) -> LMStudioEmbedding:
        return server.embedding(**settings, **({"query_instruction": "search: "} if instructed else {}))

    def was_cancelled() -> bool:
        try:
            server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped", 2.0)
        except LMStudioTimeoutError:
            return False
        return True

    return contract.Integration(
        llm=server.llm,
        unreachable=lambda: LMStudio(model="m", host="127.0.0.1:9"),
        embedding=embedding,
        server=server,
        was_cancelled=was_cancelled,
    )


@pytest.fixture
def integration() -> Iterator[contract.Integration]:
    with Server() as server:
        yield integration_on(server)


@pytest.mark.parametrize("requirement", contract.CHECKS)
def test_this_package_passes_the_check(requirement: str, integration: contract.Integration) -> None:
    contract.run(contract.CHECKS[requirement], integration)
