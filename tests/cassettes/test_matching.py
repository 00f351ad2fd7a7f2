"""Which requests mean the same, and how it is told where two of them differ."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.cassettes.cassette import ABSENT, Interaction, recorded
from lmstudio_integrations.cassettes.matching import MAX_LISTED, Matcher
from lmstudio_integrations.emulator.errors import WireError

Change = Callable[[dict[str, Any]], object]

SETTINGS = "predictionConfigStack.layers[0].config.fields.llm.prediction"


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
                    topKSampling=1,
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
        lambda p: text(p, 1, "Read the file /tmp/x/y.txt " + "now " * 5),
        (
            'history.messages[1].content[0].text: recorded "Read <path>", '
            'sent "Read the file <path> now now now now now "'
        ),
    ),
    "the end of a long text": (
        lambda p: text(p, 4, "Session 0b1f2a3c-1111-4222-8333-444455556666 of all the others"),
        'history.messages[4].content[0].text: recorded "Session <id>", sent "Session <id> of all the others"',
    ),
    "a setting": (
        lambda p: settings(p)[0].update(value=0.7),
        f"{SETTINGS}.temperature: recorded 0.2, sent 0.7",
    ),
    "a boolean": (
        lambda p: settings(p)[1].update(value=True),
        f"{SETTINGS}.topKSampling: recorded 1, sent true",
    ),
    "a further setting": (
        lambda p: settings(p).extend(fields(seed=1)),
        f"{SETTINGS}.seed: recorded nothing, sent 1",
    ),
    "a message": (
        lambda p: p["history"]["messages"].pop(),
        (
            'history.messages[4].content[0].text: recorded "Session <id>", sent nothing\n'
            '  history.messages[4].content[0].type: recorded "text", sent nothing\n'
            '  history.messages[4].role: recorded "user", sent nothing'
        ),
    ),
    "the call that a result belongs to": (
        lambda p: p["history"]["messages"][3]["content"][0].update(toolCallId="id-2"),
        "history.messages[3].content[0].toolCallId: recorded call 1, sent call 2",
    ),
    "a parameter of a tool": (
        lambda p: settings(p)[2]["value"]["tools"][0]["function"]["parameters"]["properties"].pop("title"),
        (
            f'{SETTINGS}.tools.tools[0].function.parameters.properties.title.type: recorded "string", sent nothing\n'
            f"  {SETTINGS}.tools.tools[0].function.parameters.properties: recorded nothing, sent {{}}"
        ),
    ),
    "the model": (
        lambda p: p["modelSpecifier"]["query"].update(identifier="n"),
        'modelSpecifier.query.identifier: recorded "m", sent "n"',
    ),
}


def matcher(*parameters: Any, endpoint: str = "predict") -> Matcher:
    load = Interaction(1, "channel", "llm", "getOrLoad", {"identifier": "m"})
    requests = [
        Interaction(number, "channel", "llm", endpoint, parameter) for number, parameter in enumerate(parameters, 2)
    ]
    return Matcher([load, *requests])


def cause_of(recording: Matcher, name: str, parameter: Any) -> str:
    """Return why a request is not found."""
    with pytest.raises(WireError, match=f"no such request \\({name}\\)") as caught:
        recording.find(name, parameter)
    assert recording.unmatched == [f"{name}: {caught.value.cause}"]
    return str(caught.value.cause)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_request_with_the_same_meaning_is_found(change: Change) -> None:
    sent = prediction()
    change(sent)
    assert matcher(prediction()).find("llm.predict", sent).number == 2


@pytest.mark.parametrize(("change", "lines"), OTHER.values(), ids=OTHER)
def test_another_request_is_not_and_the_difference_is_named(change: Change, lines: str) -> None:
    sent = prediction()
    change(sent)
    recording = matcher({**prediction(), "history": {"messages": []}}, prediction())
    assert cause_of(recording, "llm.predict", sent) == f"The nearest is request 3:\n  {lines}"


def test_a_generation_is_used_once_in_order_and_any_other_response_again() -> None:
    recording = matcher(prediction(), prediction())
    assert [recording.find("llm.predict", prediction()).number for _ in range(2)] == [2, 3]
    assert "It was recorded 2 times" in cause_of(recording, "llm.predict", prediction())
    counting = matcher({"inputString": "a"}, {"inputString": "a"}, endpoint="countTokens")
    assert [counting.find("llm.countTokens", {"inputString": "a"}).number for _ in range(3)] == [2, 3, 3]


def test_an_endpoint_that_was_never_asked_is_named() -> None:
    cause = cause_of(matcher(prediction()), "system.version", ABSENT)
    assert cause == "It has requests of llm.getOrLoad, llm.predict only."


def test_many_differences_are_counted() -> None:
    *lines, rest = cause_of(matcher(dict.fromkeys("abcdefghijkl", 1)), "llm.predict", {}).splitlines()
    assert (len(lines), rest) == (1 + MAX_LISTED, "  and 5 further differences")  # with that of the whole


@pytest.mark.parametrize(
    "prompt",
    [
        'cookies = {"session": "abc"}',
        "cookies = []",
        "authorization: {mode: rbac}",
        "Send `Bearer sk-abcdefgh12` there.",
    ],
)
def test_a_request_with_a_secret_equals_its_recording(prompt: str) -> None:
    kept = recorded(Interaction(1, "call", "llm", "applyPromptTemplate", {"text": prompt}))
    assert kept is not None
    assert kept.parameter != {"text": prompt}
    assert Matcher([kept]).find(kept.name, {"text": prompt}) is kept
    assert Matcher([kept]).find(kept.name, kept.parameter) is kept
