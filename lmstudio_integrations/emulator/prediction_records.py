"""Plain data of a prediction for its record: the request, and the accumulated response."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.records import PredictionRecord
from lmstudio_integrations.emulator.uploads import INLINE, Upload
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEvent, ToolCallEnd, ToolCallFailed

_TOOL_SETTINGS = {"llm.prediction.tools", "llm.prediction.toolChoice"}

Images = Iterable[tuple[FileHandle, Upload]]


def record_of(
    model: str, client: str, request: GenerateRequest, fields: Mapping[str, Any], images: Images
) -> PredictionRecord:
    """Return the record of a request. `fields` are the requested settings, by their wire keys."""
    return PredictionRecord(
        model=model,
        client=client,
        messages=[
            message | {"content": _content(message["content"])}
            for message in (request.history.to_dict()["messages"] if request.history else ())
        ],
        prompt=request.prompt,
        tools=[tool.to_dict() for tool in request.tools],
        tool_choice=request.tool_choice,
        config=LlmPredictionConfig.describe({key: fields[key] for key in fields.keys() - _TOOL_SETTINGS}),
        images=[_image(handle, upload) for handle, upload in images],
    )


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Return the text if there is nothing else, else the parts; identifiers that contain the file are shortened."""
    if [part["type"] for part in parts] == ["text"]:
        text: str = parts[0]["text"]
        return text
    return [part | {"identifier": _name(part["identifier"])} if part["type"] == "file" else part for part in parts]


def _image(handle: FileHandle, upload: Upload) -> dict[str, Any]:
    return {
        "name": handle.name,
        "identifier": _name(handle.identifier),
        "sizeBytes": len(upload.data),
        "sha256": upload.sha256,
    }


def _name(identifier: str) -> str:
    return INLINE if identifier.startswith(INLINE) else identifier


class Response:
    """Accumulates the response of a model.

    Attributes:
        fragments: The number of text fragments.
        written: The complete text in order, including reasoning tags and the text of tool calls.
    """

    def __init__(self) -> None:
        self.fragments: int = 0
        self.written: list[str] = []
        self._texts: dict[str, list[str]] = {"none": [], "reasoning": []}
        self._tool_calls: list[dict[str, Any]] = []

    def add(self, event: PredictionEvent) -> None:
        """Add an event."""
        if isinstance(event, LlmPredictionFragment):
            self.fragments += 1
            self.written.append(event.content)
            if event.reasoning_type in self._texts:
                self._texts[event.reasoning_type].append(event.content)
        elif isinstance(event, ToolCallEnd | ToolCallFailed):
            self.written.append(event.raw_content or "")
            if isinstance(event, ToolCallEnd):
                self._tool_calls.append({"id": event.id, "name": event.name, "arguments": event.arguments})

    def members(self) -> dict[str, Any]:
        """Return the members of the record."""
        return {
            "text": "".join(self._texts["none"]),
            "reasoning": "".join(self._texts["reasoning"]),
            "tool_calls": self._tool_calls,
        }
