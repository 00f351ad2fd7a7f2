"""The same request, as different SDKs write it, has one normal form."""

import json
from typing import Any

import pytest

from lmstudio_integrations.emulator.testing.cassettes.cassette import Request
from lmstudio_integrations.emulator.testing.cassettes.normalize import normalize

REFERENCES = {"r1": "chat"}
NAMED = {"type": "query", "query": {"identifier": "chat"}}
IMAGE = {"type": "file", "name": "a.png", "identifier": "local:1", "sizeBytes": 70, "fileType": "image"}
OTHER_IMAGE = IMAGE | {"identifier": "local:2"}
CALL, OTHER_CALL = (
    {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "id": name, "name": "add", "arguments": {}}}
    for name in ("7", "8")
)
RESULT = {"type": "toolCallResult", "content": "5", "toolCallId": "7"}
TEMPLATE = {"key": "llm.prediction.promptTemplate", "value": {"type": "jinja", "stopStrings": []}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def layer(*fields: tuple[str, Any], name: str = "apiOverride") -> dict[str, Any]:
    settings = [{"key": f"llm.prediction.{key}", "value": value} for key, value in fields]
    return {"layerName": name, "config": {"fields": settings}}


def predict(*content: Any, role: str = "user", layers: Any = (), model: Any = NAMED) -> Any:
    messages = [{"role": role, "content": list(content)}]
    stack = {"layers": list(layers)}
    return "predict", {"modelSpecifier": model, "history": {"messages": messages}, "predictionConfigStack": stack}


def complete(prompt: str, *layers: Any) -> Any:
    stack = {"layers": list(layers)}
    return "completeRawText", {"modelSpecifier": NAMED, "rawPrompt": prompt, "predictionConfigStack": stack}


def structured(schema: Any) -> Any:
    return layer(("structured", {"type": "json", "jsonSchema": {"type": "object", **schema}}))


def load(*settings: tuple[str, Any]) -> Any:
    fields = [{"key": key, "value": value} for key, value in settings]
    return "loadModel", {
        "modelKey": "chat",
        "loadConfigStack": {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]},
    }


EVENLY: dict[str, Any] = {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}
COMPLETION = {"layerName": "completeModeFormatting", "config": {"fields": [TEMPLATE]}}
TEMPERATURE = layer(("temperature", 0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (predict(text("Hello"), layers=[TEMPERATURE, COMPLETION]), complete("Hello", TEMPERATURE)),
        (complete("Hello", layer(("stopStrings", []))), complete("Hello")),
        (predict(layers=[TEMPERATURE]), predict(layers=[layer(("temperature", 0.0))])),
        (predict(IMAGE, text("Look")), predict(text("Look"), IMAGE)),
        (predict(text(""), CALL, role="assistant"), predict(OTHER_CALL, role="assistant")),
        (predict(RESULT, role="tool"), predict(RESULT | {"name": "add"}, role="tool")),
        (predict(), predict(model={"type": "instanceReference", "instanceReference": "r1"})),
        (predict(layers=[structured({})]), predict(layers=[structured({"$defs": {}, "title": "A"})])),
        (load(("load.gpuSplitConfig", EVENLY)), load(("llm.load.llama.autoFit", False))),
    ],
)
def test_two_forms_mean_the_same(one: Any, other: Any) -> None:
    first, second = (Request("llm", *each) for each in (one, other))
    assert json.dumps(first.parameter) != json.dumps(second.parameter)
    assert normalize(first, REFERENCES) == normalize(second, REFERENCES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (complete("Hello", TEMPERATURE), complete("Hello")),
        (predict(text("Hello")), complete("Hello")),
        (predict(layers=[layer(("temperature", 1))]), predict(layers=[layer(("temperature", 1.5))])),
        (predict(IMAGE, OTHER_IMAGE), predict(OTHER_IMAGE, IMAGE)),
        (predict(text("a"), text("b")), predict(text("b"), text("a"))),
        (predict(RESULT, role="tool"), predict(RESULT | {"content": "6"}, role="tool")),
        (predict(), predict(model={"type": "instanceReference", "instanceReference": "r2"})),
        (predict(layers=[structured({})]), predict(layers=[structured({"$defs": {"A": {}}})])),
        (predict(layers=["of a newer protocol"]), predict(layers=["of another one"])),
        (load(("load.gpuSplitConfig", EVENLY | {"disabledGpus": [1]})), load(("llm.load.llama.autoFit", True))),
    ],
)
def test_two_requests_mean_something_else(one: Any, other: Any) -> None:
    first, second = (Request("llm", *each) for each in (one, other))
    assert normalize(first, REFERENCES) != normalize(second, REFERENCES)
