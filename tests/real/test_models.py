"""What models wrote, read by the product: whole and in pieces, with repairs and without."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.calls_in_text.repair_calls import RepairCalls
from lmstudio_integrations.client.predictions.middleware import Events
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from lmstudio_integrations.types.results import LlmPredictionFragment
from tests._adapters.ways import ways
from tests.client.predictions.middlewares import end, passed, plan_with
from tests.real.corpus import OUTPUTS, Row, calls_of, of_kind, parameters, pieces, tools_of

SIZES = (None, 1, 3, 11)
"""Characters of a fragment, as the size changes where a marker is cut."""

KINDS = {"call", "cut", "not-call", "reasoning", "structured"}

INDISTINGUISHABLE = "indistinguishable"
"""The policy of texts that look like calls in every way."""


class Read(NamedTuple):
    """What was delivered of an output."""

    calls: list[tuple[str, Any]]
    text: str
    asks_again: bool


def read(row: Row, parts: list[str], *, repairs: bool) -> Read:
    """Return what the readers of calls deliver of an output that arrives in parts."""
    plan = plan_with(tools_of(row))
    plan = replace(plan, options=replace(plan.options, rescue_tool_calls=True, repair_tool_calls=repairs))
    thought = row["payload"].get("reasoning", "")
    batches: list[Events] = [[LlmPredictionFragment(thought, reasoning_type="reasoning")]] if thought else []
    batches += [[LlmPredictionFragment(part)] for part in parts]
    delivered, events = passed(ReadCalls(plan), [*batches, [end()]])
    if repairs:
        delivered, _ = passed(RepairCalls(plan), [[event] for event in events])
    if delivered.end is None:
        return Read([], "", asks_again=True)
    result = delivered.result()
    calls = [(call.name, call.arguments) for call in result.tool_call_requests]
    return Read(calls, result.content, asks_again=False)


def read_whole(row: Row, *, repairs: bool) -> Read:
    return read(row, [row["payload"]["text"]], repairs=repairs)


def read_in_sizes(row: Row, *, repairs: bool) -> dict[int | None, Read]:
    """Return what is delivered of an output by the size of its fragments."""
    return {size: read(row, pieces(row["payload"]["text"], size), repairs=repairs) for size in SIZES}


# Rows -----------------------------------------------------------------------------------------------------------------


def test_every_row_says_where_it_is_from_and_what_is_expected() -> None:
    assert len({row["id"] for row in OUTPUTS}) == len(OUTPUTS)
    for row in OUTPUTS:
        assert row["id"].startswith(row["kind"])
        assert row["kind"] in KINDS
        assert row["source"]
        assert row["date"] >= "2024"
        assert row["quality"].partition(" ")[0].strip(":,;") in {"raw", "rebuilt", "fixture"}
        assert row["expect"]
        if "calls" in row["expect"] and "tools" in row["payload"]:
            assert {name for name, _ in calls_of(row)} <= row["payload"]["tools"].keys()
            assert set(row.get("meant", ())) <= row["payload"]["tools"].keys()


# Calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", parameters(of_kind("call")))
def test_a_call_is_read_whole_and_in_pieces(row: Row) -> None:
    whole = read_whole(row, repairs=False)
    assert read_in_sizes(row, repairs=False) == dict.fromkeys(SIZES, whole)
    if "policy" in row:
        assert (whole.calls, whole.text) == ([], row["payload"]["text"])
    else:
        assert whole.calls == calls_of(row)
        assert whole.text == row["expect"].get("text", whole.text)


@pytest.mark.parametrize("row", parameters(each for each in of_kind("call") if "policy" not in each))
def test_a_call_that_is_read_is_the_same_with_repairs(row: Row) -> None:
    whole = read_whole(row, repairs=False)
    assert read_in_sizes(row, repairs=True) == dict.fromkeys(SIZES, whole)


@pytest.mark.parametrize("row", parameters(of_kind("cut")))
def test_what_is_cut_off_is_no_call(row: Row) -> None:
    nothing = Read([], row["payload"]["text"], asks_again=False)
    assert read_in_sizes(row, repairs=False) == dict.fromkeys(SIZES, nothing)


@pytest.mark.parametrize("row", parameters(of_kind("cut")))
def test_what_is_cut_off_is_mended_only_to_what_was_meant(row: Row) -> None:
    whole = read_whole(row, repairs=True)
    assert read_in_sizes(row, repairs=True) == dict.fromkeys(SIZES, whole)
    assert {name for name, _ in whole.calls} <= set(row["meant"])
    assert row["meant"] or not whole.asks_again


OTHER_BEGINNINGS = {"call-minimax-109", "call-hermes-101", "call-hermes-201", "call-hermes-203", "call-qwen-xml-1013"}
"""A value with a tag in it, and thoughts with a call in them: up to there, nothing tells what follows."""


@pytest.mark.slow
@pytest.mark.sampled(20)
@pytest.mark.parametrize("row", parameters(each for each in of_kind("call") if "policy" not in each))
def test_the_beginning_of_an_output_calls_nothing_else(row: Row) -> None:
    text, expected = row["payload"]["text"], calls_of(row)
    found = [call for at in range(1, len(text)) for call in read(row, [text[:at]], repairs=False).calls]
    assert all(call in expected for call in found) is (row["id"] not in OTHER_BEGINNINGS)


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repairs", [False, True], ids=["as they are", "with repairs"])
@pytest.mark.parametrize("row", parameters(of_kind("not-call")))
def test_a_text_that_is_no_call_stays_text(row: Row, repairs: bool) -> None:
    found = read_in_sizes(row, repairs=repairs)
    if row.get("policy") == INDISTINGUISHABLE:
        assert [len(each.calls) for each in found.values()] == [1] * len(SIZES)
    else:
        assert found == dict.fromkeys(SIZES, Read([], row["payload"]["text"], asks_again=False))


@pytest.mark.slow
@pytest.mark.sampled(20)
@pytest.mark.parametrize("row", parameters(of_kind("call", "cut", "not-call")))
def test_where_an_output_is_cut_in_two_does_not_matter(row: Row) -> None:
    text = row["payload"]["text"]
    for repairs in (False, True):
        whole = read_whole(row, repairs=repairs)
        for at in range(1, len(text)):
            assert read(row, [text[:at], text[at:]], repairs=repairs) == whole, (at, repairs)


BEGUN: Row = {
    "id": "begun",
    "payload": {
        "text": '<tool_call>\n{"name": "read_tide", "arguments": {"harbor": "Tur',
        "tools": {
            "read_tide": {"type": "object", "properties": {"harbor": {"type": "string"}}, "required": ["harbor"]}
        },
    },
}
"""A call that a model has begun, so that it is asked for again."""

PLAYED = (None, 1)
"""The sizes that a server sends."""


def prompt(row: Row, size: int | None) -> str:
    return f"{row['id']} in {'one piece' if size is None else f'pieces of {size}'}"


def rules(rows: list[Row]) -> tuple[dict[str, Any], ...]:
    """Return rules by which a model writes outputs. Whatever else is asked by grammar gets a value that obeys."""
    return tuple(
        {
            "when": {"last": f"^{prompt(row, size)}$"},
            "then": [{"text": piece} for piece in pieces(row["payload"]["text"], size)],
        }
        for row in rows
        for size in PLAYED
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    """A server that writes each output, and obeys every grammar."""
    with Emulator([ModelEntry(key="m", rules=rules([*OUTPUTS, BEGUN]))]) as running:
        yield running


@pytest.fixture(scope="module")
def model(server: Emulator) -> Iterator[Any]:
    with lms.Client(server.address) as client:
        yield client.llm.model("m")


def settings(row: Row) -> dict[str, Any]:
    offered: lms.LlmPredictionConfigDict = {"rawTools": {"type": "toolArray", "tools": tools_of(row)}}
    return {"config": offered, "rescue_tool_calls": True, "repair_tool_calls": True}


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("row", parameters(row for row in of_kind("not-call") if "policy" not in row))
def test_no_text_becomes_a_call_at_a_server_that_obeys(
    server: Emulator, model: Any, row: Row, size: int | None
) -> None:
    before = len(server.predictions)
    result = model.respond(prompt(row, size), **settings(row))
    assert result.tool_call_requests == ()
    assert row["payload"]["text"].endswith(result.content)  # without what is reasoning
    assert result.content
    assert len(server.predictions) == before + 1


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
def test_a_call_that_was_begun_is_written_again_by_a_server_that_obeys(
    server: Emulator, model: Any, size: int | None
) -> None:
    before = len(server.predictions)
    result = model.respond(prompt(BEGUN, size), **settings(BEGUN))
    assert [call.name for call in result.tool_call_requests] == ["read_tide"]
    assert len(server.predictions) == before + 2


def row_of(row_id: str) -> Row:
    return next(row for row in OUTPUTS if row["id"] == row_id)


CALL, TEXT = row_of("call-qwen-xml-905"), row_of("not-call-quoted-55")
"""A call behind a sentence that mentions its marker, and a text that a second request could make a call."""
WAYS_OF_CALL, WAYS_OF_TEXT = (ways({"tools": tools_of(row)}, settings(row)) for row in (CALL, TEXT))


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("way", WAYS_OF_CALL)
def test_each_way_to_generate_reads_a_call(server: Emulator, way: str, size: int | None) -> None:
    seen = WAYS_OF_CALL[way](server.address, prompt(CALL, size))
    assert (seen["calls"], seen["text"]) == (calls_of(CALL), CALL["expect"]["text"])


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("way", WAYS_OF_TEXT)
def test_each_way_to_generate_leaves_a_text_alone(server: Emulator, way: str, size: int | None) -> None:
    before = len(server.predictions)
    seen = WAYS_OF_TEXT[way](server.address, prompt(TEXT, size))
    assert (seen["calls"], seen["text"], "".join(seen["parts"])) == (
        [],
        TEXT["payload"]["text"],
        TEXT["payload"]["text"],
    )
    assert len(server.predictions) == before + 1


# Reasoning and structured output --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("row", parameters(of_kind("reasoning")))
def test_thoughts_that_a_server_left_in_the_text_stay_there(model: Any, row: Row, size: int | None) -> None:
    """Programs ask for such tags and read them; the server is told the tags that it is to separate."""
    unknown: lms.LlmPredictionConfigDict = {"reasoningParsing": {"enabled": False, "startString": "", "endString": ""}}
    result = model.respond(prompt(row, size), config=unknown)
    assert (result.content, result.reasoning_content) == (row["payload"]["text"], "")
    assert not result.tool_call_requests


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("row", parameters(of_kind("structured")))
def test_structured_output_is_read_or_an_error_says_what_it_is(model: Any, row: Row, size: int | None) -> None:
    result = model.respond(prompt(row, size), response_format=row["payload"]["schema"])
    expected = row["expect"]
    if "policy" in row or "error" in expected:
        assert result.parsed == result.content == row["payload"]["text"]
        with pytest.raises(lms.LMStudioStructuredOutputError):
            result.parsed_as(dict[str, Any])
    else:
        assert result.parsed == expected["value"]


FENCED = row_of("structured-structured-01")


class Receipt(BaseModel):
    """What a customer has paid, and when."""

    total: float
    day: str


STRUCTURED: dict[str, Callable[[Any, str], Any]] = {
    "LangChain": lambda host, text: (
        ChatLMStudio(model="m", host=host).with_structured_output(Receipt, method="json_schema").invoke(text)
    ),
    "LlamaIndex": lambda host, text: LMStudio(model="m", host=host).structured_predict(Receipt, PromptTemplate(text)),
}


@pytest.mark.parametrize("size", PLAYED, ids=["whole", "in pieces"])
@pytest.mark.parametrize("framework", STRUCTURED)
def test_each_framework_reads_structured_output(server: Emulator, framework: str, size: int | None) -> None:
    read_value = STRUCTURED[framework](server.address, prompt(FENCED, size))
    assert read_value == Receipt(**FENCED["expect"]["value"])
