"""Structured output: by grammar, through core's programs, and as partial objects of a stream."""

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, model_validator

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from lmstudio_integrations.llama_index._structured import partial_instances
from lmstudio_integrations.types.structured import PartialJson
from tests._adapters.ways import STRUCTURED, UNREADABLE
from tests.llama_index.conftest import Listener
from tests.llama_index.scripted_server import CHAT, Server

pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # in core's structured models


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ANN = Person(name="Ann Lee", age=7)
PREDICT = [name for name in STRUCTURED if "predict" in name]
PROMPT = PromptTemplate("{who}")


def schema_sent(server: Server) -> Any:
    return server.last_request.config.structured


# By grammar -----------------------------------------------------------------------------------------------------------


def test_settings_of_the_call_are_used_and_not_changed(server: Server, llm: LMStudio) -> None:
    given = {"temperature": 0.7, "tool_choice": "x", "tool_required": True, "allow_parallel_tool_calls": True}
    llm.structured_predict(Person, PROMPT, given, who="person")
    assert server.last_request.config.temperature == 0.7
    assert len(given) == 4


class Tags(BaseModel):
    """Its schema requires unique tags; pydantic accepts repeated ones."""

    tags: set[str]


class Word(BaseModel):
    """Its pattern is invalid in Python's `re` and valid in pydantic's own engine."""

    word: str = Field(pattern=r"^\p{L}+$")


class Tenths(BaseModel):
    """As a double, 0.3 is no multiple of 0.1; pydantic allows for that."""

    number: float = Field(multiple_of=0.1)


@pytest.mark.parametrize(
    ("output_cls", "written"),
    [
        (Tags, '{"tags": ["a", "b", "a"]}'),
        (Word, '{"word": "Zoë"}'),
        (Tenths, '{"number": 0.3}'),
        (Person, '{"name": "Ann", "age": "7"}'),
    ],
)
def test_what_pydantic_accepts_is_accepted(output_cls: type[BaseModel], written: str) -> None:
    rule = {"when": {"structured": True}, "then": [{"text": written}]}
    with Server([ModelEntry(key=CHAT, rules=(rule,))]) as server, server.llm() as llm:
        instance = output_cls.model_validate_json(written)
        for method in STRUCTURED.values():
            assert method(llm, output_cls, "x")[-1] == instance


def test_as_structured_llm_responds_with_json(llm: LMStudio) -> None:
    message = llm.as_structured_llm(Person).chat([ChatMessage("person")]).message
    assert message.content == ANN.model_dump_json()


# Attempts -------------------------------------------------------------------------------------------------------------

OLD = '{"name": "Ann Lee", "age": "old"}'
TWICE = {"max_attempts": 2}


def correcting(rejected: str, corrected: str) -> Server:
    """Return a server whose model writes another text if it is asked for a correction."""
    rule = {"when": {"last": "^Your response was rejected: "}, "then": [{"text": corrected}]}
    return Server([ModelEntry(key=CHAT, rules=(rule, {"then": [{"text": rejected}]}))])


@pytest.mark.parametrize("way", ["structured_predict", "achat"])
def test_two_attempts_are_announced_as_one_prediction_of_two_chats(way: str, listener: Listener) -> None:
    with correcting(OLD, ANN.model_dump_json()) as server, server.llm(system_prompt="Be terse.") as llm:
        assert STRUCTURED[way](llm, Person, "x", **TWICE) == [ANN]
        first, second = server.predictions
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "user"]
    assert listener.names("StructuredPredict") == ["LLMStructuredPredictStartEvent", "LLMStructuredPredictEndEvent"]
    chats = [event for event in listener.events if type(event).__name__ == "LLMChatEndEvent"]
    inner = [event.response.raw["usage"]["total_tokens"] for event in chats if isinstance(event.response.raw, dict)]
    assert inner == [record.stats["totalTokensCount"] for record in (first, second)]


def test_an_empty_response_is_no_message_of_the_next_attempt() -> None:
    rules = ({"when": {"last": "rejected"}, "then": [{"text": ANN.model_dump_json()}]}, {"then": [{"text": ""}]})
    with Emulator([ModelEntry(key="m", rules=rules)]) as server:
        llm = LMStudio(model="m", host=server.address)
        assert llm.structured_predict(Person, PROMPT, TWICE, who="x") == ANN
        assert [message["role"] for message in server.predictions[1].messages] == ["user"]


@pytest.mark.parametrize("way", PREDICT)
def test_only_the_grammar_has_more_than_one_attempt(server: Server, way: str) -> None:
    with server.llm(pydantic_program_mode=PydanticProgramMode.FUNCTION) as llm:
        with pytest.raises(LMStudioValueError, match=r"which pydantic_program_mode=FUNCTION does not use; .*DEFAULT"):
            STRUCTURED[way](llm, Person, "x", **TWICE)
        assert not server.predictions
        assert STRUCTURED[way](llm, Person, "x", max_attempts=1)
        assert len(server.predictions) == 1


# Events ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", PREDICT)
def test_every_path_announces_what_core_would(llm: LMStudio, listener: Listener, way: str) -> None:
    assert STRUCTURED[way](llm, Person, "person")[-1] == ANN
    first, *between, last = listener.names("StructuredPredict")
    assert (first, last) == ("LLMStructuredPredictStartEvent", "LLMStructuredPredictEndEvent")
    assert bool(between) == ("stream" in way)
    assert set(between) <= {"LLMStructuredPredictInProgressEvent"}
    ended = [event for event in listener.events if type(event).__name__ == last]
    assert [event.output for event in ended] == [ANN]
    assert listener.names("LLMChatStart") == ["LLMChatStartEvent"]


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
async def test_what_is_no_pydantic_class_is_rejected(server: Server, mode: PydanticProgramMode) -> None:
    kind: Any
    with server.llm(pydantic_program_mode=mode) as llm:
        for kind in (dict, Person(name="x", age=1), "Person"):
            with pytest.raises(LMStudioValueError, match="output_cls must be a pydantic class; got "):
                llm.structured_predict(kind, PROMPT, who="x")
            with pytest.raises(LMStudioValueError, match="output_cls must be a pydantic class; got "):
                await llm.astructured_predict(kind, PROMPT, who="x")
            with pytest.raises(LMStudioValueError, match="output_cls must be a pydantic class; got "):
                list(llm.stream_structured_predict(kind, PROMPT, who="x"))


async def test_every_prediction_is_one_span(server: Server, spans: list[str]) -> None:
    for mode in (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION):
        with server.llm(pydantic_program_mode=mode) as llm:
            llm.structured_predict(Person, PROMPT, who="person")
            await llm.astructured_predict(Person, PROMPT, who="person")
    predicted = [name for name in spans if "structured_predict" in name]
    assert predicted == ["LMStudio.structured_predict", "LMStudio.astructured_predict"] * 2


# Other modes are core's -----------------------------------------------------------------------------------------------


async def test_mode_function_requests_a_tool_call(server: Server) -> None:
    with server.llm(pydantic_program_mode=PydanticProgramMode.FUNCTION, system_prompt="Be terse.") as llm:
        smallest = Person(name="", age=0)
        assert llm.structured_predict(Person, PROMPT, who="x") == smallest
        assert schema_sent(server) in (None, {"type": "none"})
        assert [offer.function.name for offer in server.last_request.tools] == ["Person"]
        assert server.conversation[0][0] == "system"
        assert await llm.astructured_predict(Person, PROMPT, who="x") == smallest
        assert [role for role, _ in server.conversation] == ["system", "user"]


class Weather(BaseModel):
    """The weather."""

    city: str


async def test_mode_function_streams_as_well(server: Server) -> None:
    rule = {"when": {"tools": ["Weather"]}, "then": [{"tool": "Weather", "arguments": {"city": "Oslo in rain"}}]}
    with Server([{"key": "m", "rules": (rule,)}]) as other:  # type: ignore[list-item]  # the form of a catalog
        llm = LMStudio(model="m", host=other.address, pydantic_program_mode=PydanticProgramMode.FUNCTION)
        with llm:
            found = list(llm.stream_structured_predict(Weather, PROMPT, who="x"))
            assert found[-1] == Weather(city="Oslo in rain")
            assert len(found) > 2
            awaited = [each async for each in await llm.astream_structured_predict(Weather, PROMPT, who="x")]
            assert awaited[-1] == found[-1]


def test_mode_llm_prompts_in_plain_text(server: Server) -> None:
    with server.llm(pydantic_program_mode=PydanticProgramMode.LLM) as llm, pytest.raises(ValueError, match="json"):
        llm.structured_predict(Person, PROMPT, who="count")
    assert schema_sent(server) in (None, {"type": "none"})


def test_a_chat_prompt_may_hold_braces(llm: LMStudio) -> None:
    prompt: Any = ChatPromptTemplate(message_templates=[ChatMessage(role="user", content="person {x: 1}")])
    assert llm.structured_predict(Person, prompt) == ANN


# As it grows ----------------------------------------------------------------------------------------------------------


def as_it_grows(*deltas: str) -> list[Person | FlexibleModel]:
    text = PartialJson()
    chunks = (ChatResponse(message=ChatMessage(role="assistant"), delta=delta) for delta in deltas)
    return [instance for chunk in chunks for instance in partial_instances(Person, text, chunk)]


def test_every_fragment_of_a_small_response_is_read() -> None:
    found = as_it_grows('{"na', 'me": "An', 'n", "ag', 'e": 7', "}")
    assert [each.model_dump() for each in found] == [
        {"name": None, "age": None},
        {"name": "An", "age": None},
        {"name": "Ann", "age": None},
        {"name": "Ann", "age": 7},
        {"name": "Ann", "age": 7},
    ]


def test_a_validator_that_trips_over_what_is_not_there_yet_does_not_end_the_stream(llm: LMStudio) -> None:
    class Greeted(Person):
        @model_validator(mode="before")
        @classmethod
        def greet(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "name": f"Hi {data['name']}", "age": data["age"]}

    found = list(llm.stream_structured_predict(Greeted, PROMPT, who="person"))
    assert isinstance(found[0], FlexibleModel)
    assert found[-1] == Greeted(name="Ann Lee", age=7)


def test_a_long_response_is_read_once_per_hundredth_of_growth() -> None:
    assert 100 < len(as_it_grows('{"name": "' + "x" * 5000, *"y" * 20_000)) - 1 < 170


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_arguments_that_no_parser_reads_are_a_tool_call_error(value: str) -> None:
    call = {"tool": "Person", "malformed": f'{{"name": {value}'}
    by_call = PydanticProgramMode.FUNCTION
    with (
        Server([ModelEntry(key=CHAT, rules=({"then": [call]},))]) as server,
        server.llm(pydantic_program_mode=by_call) as llm,
    ):
        with pytest.raises(LlamaIndexToolCallError):
            llm.structured_predict(Person, PROMPT, who="Ann")
        with pytest.raises(LlamaIndexToolCallError):
            list(llm.stream_structured_predict(Person, PROMPT, who="Ann"))
