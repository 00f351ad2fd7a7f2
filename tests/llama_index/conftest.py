"""A server for each test."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index_instrumentation import root_dispatcher
from pydantic import Field

from lmstudio_integrations.llama_index.llms import LMStudio
from tests.llama_index.scripted_server import Server
from tests.support.served import served
from tests.support.strict.fixture import strict, strict_findings

__all__ = ["strict", "strict_findings"]

server = served(scope="function", make=Server)


@pytest.fixture
def llm(server: Server) -> Iterator[LMStudio]:
    with server.llm() as model:
        yield model


class _Spans(NullSpanHandler):
    """Keeps the names of the methods whose spans begin."""

    begun: list[str] = Field(default_factory=list[str])

    def span_enter(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self.begun.append(id_.partition("-")[0])


@pytest.fixture
def spans() -> Iterator[list[str]]:
    """The spans that begin, by class and method."""
    found = _Spans()
    root_dispatcher.add_span_handler(found)
    yield found.begun
    root_dispatcher.span_handlers.remove(found)


class Listener(BaseEventHandler):
    """Keeps what is announced."""

    events: list[Any] = Field(default_factory=list[Any])

    @classmethod
    def class_name(cls) -> str:
        return "Listener"

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)

    def names(self, part: str) -> list[str]:
        return [type(event).__name__ for event in self.events if part in type(event).__name__]


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    root_dispatcher.add_event_handler(found)
    yield found
    root_dispatcher.event_handlers.remove(found)
