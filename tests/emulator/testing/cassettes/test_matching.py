"""Which requests mean the same, and how it is told where two of them differ."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.cassette import ABSENT, Event, Interaction, Request
from lmstudio_integrations.emulator.testing.redaction import Redaction
from lmstudio_integrations.emulator.testing.wire_items import MAX_LISTED, Matcher

Change = Callable[[dict[str, Any]], object]

SETTINGS = "predictionConfigStack.layers[0].config.fields.llm.prediction"
INFO = {"type": "llm", "identifier": "m", "instanceReference": "ref-1"}


def fields(**settings: Any) -> list[dict[str, Any]]:
    return [{"key": f"llm.prediction.{key}", "value": value} for key, value in settings.items()]


def layer(name: str, **settings: Any) -> dict[str, Any]:
    return {"layerName": name, "config": {"fields": fields(**settings)}}


def call(number: str) -> dict[str, Any]:
    request = {"type": "function", "id": number, "name": "add", "arguments": {"a": 1}}
    return {"type": "toolCallRequest", "toolCallRequest": request}


def prediction() -> dict[str, Any]:
    """Return the parameter of a prediction with everything in it."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": copy.deepcopy(schema)}}
    return {
        "modelSpecifier": {"type": "query", "query": {"identifier": "m"}},
        "history": {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "It is 2026-11-23T10:00:00Z."}]},
                {"role": "user", "content": [{"type": "text", "text": "Read /tmp/abc/notes.txt"}]},
                {"role": "assistant", "content": [call("id-1")]},
                {"role": "tool", "content": [{"type": "toolCallResult", "content": "3", "toolCallId": "id-1"}]},
                {"role": "user", "content": [{"type": "text", "text": "Session 0b1f2a3c-1111-4222-8333-444455556666"}]},
            ]
        },
        "predictionConfigStack": {
            "layers": [
                layer(
                    "apiOverride",
                    temperature=0.2,
                    topKSampling=40,
                    tools={"type": "toolArray", "tools": [tool]},
                    structured={"type": "json", "jsonSchema": schema},
                )
            ]
        },
    }


def text(parameter: dict[str, Any], index: int, value: str) -> None:
    parameter["history"]["messages"][index]["content"][0]["text"] = value


def settings(parameter: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parameter["predictionConfigStack"]["layers"][0]["config"]["fields"]
    return found


def other_ids(parameter: dict[str, Any]) -> None:
    messages = parameter["history"]["messages"]
    messages[2]["content"] = [call("id-9")]
    messages[3]["content"][0]["toolCallId"] = "id-9"


SAME: dict[str, Change] = {
    "the order of settings": lambda p: settings(p).reverse(),
    "generated identifiers": other_ids,
    "a time": lambda p: text(p, 0, "It is 2027-01-02 03:04:05.678+01:00."),
    "a temporary path": lambda p: text(p, 1, "Read /tmp/x/y.txt"),
    "a UUID": lambda p: text(p, 4, "Session 7F9C24E8-3B12-4fef-9d5a-000000000000"),
}

OTHER: dict[str, tuple[Change, str]] = {
    "a text": (
        lambda p: text(p, 1, "Read /tmp/x/y.txt now"),
        'history.messages[1] (user).content[0].text, from character 11: recorded "Read <path>", sent "Read <path> now"',
    ),
    "a setting": (
        lambda p: settings(p)[0].update(value=0.7),
        f"{SETTINGS}.temperature: recorded 0.2, sent 0.7",
    ),
    "a further setting": (
        lambda p: settings(p).extend(fields(seed=1)),
        f"{SETTINGS}.seed: recorded nothing, sent 1",
    ),
    "a message": (
        lambda p: p["history"]["messages"].pop(),
        (
            'history.messages[4] (user): recorded {"role": "user", "content": [{"type": "text", "text": '
            '"Session <id>"}]}, sent nothing'
        ),
    ),
    "the call that a result belongs to": (
        lambda p: p["history"]["messages"][3]["content"][0].update(toolCallId="id-2"),
        'history.messages[3] (tool).content[0].toolCallId, from character 5: recorded "call 1", sent "call 2"',
    ),
    "a parameter of a tool": (
        lambda p: settings(p)[2]["value"]["tools"][0]["function"]["parameters"]["properties"].clear(),
        f'{SETTINGS}.tools.tools[0].function.parameters.properties.title: recorded {{"type": "string"}}, sent nothing',
    ),
    "the model": (
        lambda p: p["modelSpecifier"]["query"].update(identifier="n"),
        'modelSpecifier.query.identifier: recorded "m", sent "n"',
    ),
}


def matcher(*parameters: Any, endpoint: str = "predict") -> Matcher:
    load = Interaction(1, 0, "channel", "llm", "getOrLoad", {"identifier": "m"})
    load.events.append(Event("received", 0, {"type": "loadSuccess", "info": INFO}))
    requests = [
        Interaction(number, 0, "channel", "llm", endpoint, parameter) for number, parameter in enumerate(parameters, 2)
    ]
    return Matcher([load, *requests], Redaction())


def number_of(found: Interaction | None) -> int | None:
    return None if found is None else found.number


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_request_with_the_same_meaning_is_found(change: Change) -> None:
    sent = prediction()
    change(sent)
    assert number_of(matcher(prediction()).find(Request("llm", "predict", sent))) == 2


@pytest.mark.parametrize(("change", "line"), OTHER.values(), ids=OTHER)
def test_another_request_is_not_and_the_difference_is_told(change: Change, line: str) -> None:
    sent = prediction()
    change(sent)
    recording = matcher({**prediction(), "history": {"messages": []}}, prediction())
    request = Request("llm", "predict", sent)
    assert recording.find(request) is None
    assert recording.explain(request).cause == f"The nearest is request 3:\n  {line}"
    assert recording.unmatched == [f"llm.predict: The nearest is request 3:\n  {line}"]


def test_an_exact_request_is_found_before_one_that_means_the_same() -> None:
    later = prediction()
    text(later, 0, "It is 2027-01-02T03:04:05Z.")
    recording = matcher(prediction(), later)
    found = [recording.find(Request("llm", "predict", each)) for each in (later, prediction())]
    assert list(map(number_of, found)) == [3, 2]


def test_a_generation_is_used_once_in_order_and_any_other_response_again() -> None:
    recording = matcher(prediction(), prediction())
    request = Request("llm", "predict", prediction())
    assert [number_of(recording.find(request)) for _ in range(3)] == [2, 3, None]
    assert "It was recorded 2 times" in str(recording.explain(request).cause)
    counting = matcher({"inputString": "a"}, {"inputString": "a"}, endpoint="countTokens")
    again = Request("llm", "countTokens", {"inputString": "a"})
    assert [number_of(counting.find(again)) for _ in range(3)] == [2, 3, 3]


def test_an_endpoint_that_was_never_asked_is_named() -> None:
    recording = matcher(prediction())
    assert recording.find(Request("system", "version", ABSENT)) is None
    cause = recording.explain(Request("system", "version", ABSENT)).cause
    assert cause == "It has requests of llm.getOrLoad, llm.predict only."


def test_many_differences_are_counted() -> None:
    recording = matcher(dict.fromkeys("abcdefghijkl", 1))
    *lines, rest = str(recording.explain(Request("llm", "predict", {})).cause).splitlines()
    assert (len(lines), rest) == (1 + MAX_LISTED, "  and 4 further differences")
