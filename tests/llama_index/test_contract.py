"""This package keeps every sentence of the contract."""

from collections.abc import Iterator
from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.llama_index import contract
from tests.llama_index.server import Server

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore:is_running called from within a step"
)


def subject_on(server: Server) -> contract.Subject:
    """Return this package's classes on a server."""

    def embedding(*, instructed: bool = False, **settings: Any) -> LMStudioEmbedding:
        return server.embedding(**settings, **({"query_instruction": "search: "} if instructed else {}))

    def left() -> bool:
        try:
            server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped", 2.0)
        except LMStudioTimeoutError:
            return False
        return True

    return contract.Subject(
        llm=server.llm,
        unreachable=lambda: LMStudio(model="m", host="127.0.0.1:9"),
        embedding=embedding,
        server=server,
        left=left,
    )


@pytest.fixture
def subject() -> Iterator[contract.Subject]:
    with Server() as server:
        yield subject_on(server)


@pytest.mark.parametrize("sentence", contract.CHECKS)
def test_this_package_keeps_the_contract(sentence: str, subject: contract.Subject) -> None:
    contract.run(contract.CHECKS[sentence], subject)
