"""The page on timeouts has the defaults of the code: of each timeout, and of what limits the length of a response."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.ray import Generator
from lmstudio_integrations.types.timeouts import ModelTimeouts
from tests.docs.snippets import ROOT
from tests.support.adapters import RERANKERS

PAGE = (ROOT / "docs/guides/timeouts.md").read_text(encoding="utf-8")


def rows_of(header: str) -> Iterator[list[str]]:
    """Yield the cells of the rows of a table."""
    table = PAGE.split(f"\n{header}\n", 1)[1].split("\n\n", 1)[0]
    for row in table.splitlines()[1:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def test_the_default_timeouts_are_those_of_the_code() -> None:
    written = {name.strip("`"): default for name, default, _ in rows_of("| timeout | default | limits |")}
    assert written == {name: "none" if limit is None else f"{limit:g}" for name, limit in TIMEOUTS.items()}


def test_the_descriptions_have_the_default_timeouts() -> None:
    for name, limit in TIMEOUTS.items():
        stated = "No limit by default." if limit is None else f"The default is {limit:g};"
        assert stated in (ModelTimeouts.model_fields[name].description or ""), name


def native(call: Callable[[Any], Any]) -> Callable[[str], Any]:
    def make(host: str) -> None:
        with lms.Client(host) as client:
            call(client.llm.model("m"))

    return make


def look(city: str) -> str:
    """Look."""
    return city


async def generate(host: str) -> None:
    async for _ in Generator("m", prompt="{body}", hosts=[host])(pa.table({"body": ["q"]})):
        pass


def rerank(host: str) -> None:
    for adapter in RERANKERS.values():
        adapter.call(adapter.make(model="m", host=host), "q")


CALLS: dict[str, list[Callable[[str], Any]]] = {
    "`ChatLMStudio`, `LMStudioLLM`, LlamaIndex's `LMStudio`": [
        lambda host: ChatLMStudio(model="m", host=host).invoke("q"),
        lambda host: LMStudioLLM(model="m", host=host).invoke("q"),
        lambda host: LMStudio(model="m", host=host).complete("q"),
    ],
    "`LMStudioReranker` of both, native `rerank()`": [rerank, native(lambda model: model.rerank("q", ["a"]))],
    "native `warm()`": [native(lambda model: model.warm("q"))],
    "native `respond()`, `complete()` and `act()`, Ray's `Generator`": [
        native(lambda model: model.respond("q")),
        native(lambda model: model.respond_stream("q").wait_for_result()),
        native(lambda model: model.complete("q")),
        native(lambda model: model.complete_stream("q").wait_for_result()),
        native(lambda model: model.act("q", [look])),
        lambda host: asyncio.run(generate(host)),
    ],
}
ROWS = rows_of("| call | policy | tokens |")
LIMITS = {call: (policy, tokens) for call, policy, tokens in ROWS}


def test_every_row_is_checked() -> None:
    assert LIMITS.keys() == CALLS.keys()


@pytest.mark.parametrize("row", CALLS)
def test_a_call_sends_the_limits_that_the_page_says(row: str) -> None:
    for call in CALLS[row]:
        with Emulator([ModelEntry(key="m")]) as server:
            call(server.address)
            configs = [each.config for each in server.predictions]
        sent = {(config.get("contextOverflowPolicy"), config.get("maxTokens")) for config in configs}
        assert {tuple("none" if each is None else str(each) for each in limits) for limits in sent} == {
            tuple(re.sub("`", "", cell) for cell in LIMITS[row])
        }
