"""Trustcall extracts an object, mends it by a patch, and updates, inserts and removes objects."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "trustcall", group="agents", job="extracts an object, mends it by a patch, and updates, inserts and removes objects"
)


def _ferry() -> Any:
    from pydantic import BaseModel, field_validator

    class Ferry(BaseModel):
        """A ferry."""

        pier: int
        port: str

        @field_validator("pier")
        @classmethod
        def check(cls, pier: int) -> int:
            if pier > 9:
                raise ValueError("there are nine piers")
            return pier

    return Ferry


def _patch(tool: str, key: str, pier: int) -> dict[str, Any]:
    patches = [{"op": "replace", "path": "/pier", "value": pier}]
    return {"tool": tool, "arguments": {"json_doc_id": key, "planned_edits": "- the pier", "patches": patches}}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_object_is_mended(serve: Serve, asynchronous: bool) -> None:
    from trustcall import create_extractor

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "there are nine piers"}, "then": [_patch("PatchFunctionErrors", "1", 7)]},
        {"then": [{"tool": "Ferry", "arguments": {"pier": 77, "port": "Oslo"}, "id": "1"}]},
    )
    ferry = _ferry()
    extractor = create_extractor(ChatLMStudio(model=CHAT), tools=[ferry], tool_choice="Ferry")
    text = "The ferry to Oslo leaves from pier seven."
    result = await extractor.ainvoke(text) if asynchronous else extractor.invoke(text)
    assert result["responses"] == [ferry(pier=7, port="Oslo")]
    first, second = server.predictions
    assert [each["function"]["name"] for each in first.tools] == ["Ferry"]
    assert [each["function"]["name"] for each in second.tools] == ["PatchFunctionErrors", "PatchFunctionName"]
    assert [first.tool_choice, second.tool_choice] == ["required", "required"]
    assert [each["role"] for each in second.messages] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_objects_are_updated(serve: Serve, asynchronous: bool) -> None:
    from trustcall import create_extractor

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {
            "then": [
                _patch("PatchDoc", "a", 8),
                {"tool": "Ferry", "arguments": {"pier": 9, "port": "Kiel"}},
                {"tool": "RemoveDoc", "arguments": {"json_doc_id": "b"}},
            ]
        }
    )
    ferry = _ferry()
    extractor = create_extractor(
        ChatLMStudio(model=CHAT), tools=[ferry], tool_choice="any", enable_inserts=True, enable_deletes=True
    )
    existing = [("a", "Ferry", {"pier": 7, "port": "Oslo"}), ("b", "Ferry", {"pier": 1, "port": "Rome"})]
    given: Any = {"messages": [("user", "Oslo is pier 8, Kiel is 9, Rome has none.")], "existing": existing}
    result = await extractor.ainvoke(given) if asynchronous else extractor.invoke(given)
    patched, inserted, removed = result["responses"]
    assert (patched, inserted) == (ferry(pier=8, port="Oslo"), ferry(pier=9, port="Kiel"))
    assert removed.json_doc_id == "b"
    assert [each.get("json_doc_id") for each in result["response_metadata"]] == ["a", None, None]
    (request,) = server.predictions
    assert [each["function"]["name"] for each in request.tools] == ["PatchDoc", "Ferry", "RemoveDoc"]
    assert request.tool_choice == "required"
    assert [each["role"] for each in request.messages] == ["system", "user"]
    assert "<instance id=a" in request.messages[0]["content"]
