"""Structured output."""

from typing import Any

from typing_extensions import TypedDict

from tests.contract.langchain.integration import Integration, Person, collect, contract, offered_tools
from tests.contract.suite import is_structured

ANN = Person(name="Ann Lee", age=7)


class _PersonDict(TypedDict):
    """A person."""

    name: str
    age: int


def _sent_schema(integration: Integration) -> dict[str, Any]:
    schema: dict[str, Any] = (integration.server.last_request.config.structured or {})["jsonSchema"]
    return schema


@contract("`with_structured_output` returns an instance of a pydantic class")
async def _pydantic(integration: Integration) -> None:
    llm = integration.chat().with_structured_output(Person)
    assert llm.invoke("person") == await llm.ainvoke("person") == ANN


@contract("`with_structured_output` returns a dict for a `TypedDict` or a JSON schema")
def _dicts(integration: Integration) -> None:
    for schema in (_PersonDict, {**Person.model_json_schema(), "description": "A person."}):
        assert integration.chat().with_structured_output(schema).invoke("person") == ANN.model_dump()


@contract('`method="json_schema"`: the server enforces the schema')
def _json_schema(integration: Integration) -> None:
    assert integration.chat().with_structured_output(Person, method="json_schema").invoke("person") == ANN
    assert is_structured(integration.server.last_request)
    assert {*_sent_schema(integration)["properties"]} == {"name", "age"}
    assert {*_sent_schema(integration)["required"]} == {"name", "age"}


@contract('`method="function_calling"`: the schema is sent as a tool, and its call is the result')
def _function_calling(integration: Integration) -> None:
    llm = integration.chat().with_structured_output(Person, method="function_calling")
    assert llm.invoke("call person") == ANN
    assert offered_tools(integration) == ["Person"]


@contract('`method="json_mode"`: the server enforces JSON')
def _json_mode(integration: Integration) -> None:
    assert integration.chat().with_structured_output(Person, method="json_mode").invoke("person") == ANN
    assert is_structured(integration.server.last_request)


@contract("`include_raw=True` returns the message, the instance and the parsing error")
def _include_raw(integration: Integration) -> None:
    llm = integration.chat().with_structured_output(Person, include_raw=True)
    found = llm.invoke("person")
    assert (found["parsed"], found["parsing_error"]) == (ANN, None)
    assert found["raw"].text
    failed = llm.invoke("half")
    assert failed["parsed"] is None
    assert isinstance(failed["parsing_error"], Exception)
    assert failed["raw"].text == '{"name": "Ann", "ag'


@contract("structured output streams growing dicts, and ends with the complete one")
async def _stream(integration: Integration) -> None:
    llm = integration.chat().with_structured_output(_PersonDict)
    for found in (list(llm.stream("long person")), await collect(llm.astream("long person"))):
        assert len(found) > 10
        assert found[-1]["age"] == 7
        assert len(found[1].get("name", "")) < len(found[-1]["name"])


@contract("`strict=True`: the schema that is sent forbids further members")
def _strict(integration: Integration) -> None:
    integration.chat().with_structured_output(Person, method="json_schema", strict=True).invoke("person")
    assert _sent_schema(integration)["additionalProperties"] is False


@contract("reasoning before a structured response is not parsed")
def _reasoning(integration: Integration) -> None:
    assert integration.chat().with_structured_output(Person).invoke("pensive") == Person(name="A", age=1)
