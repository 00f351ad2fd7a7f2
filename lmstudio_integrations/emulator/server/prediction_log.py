"""Plain data of a prediction for its record: the request, and the accumulated response."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.server.uploads import Upload
from lmstudio_integrations.emulator.testing.request_log import PredictionRecord
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import INLINE, FileHandle
from lmstudio_integrations.types.results import PredictionEnd

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


def outcome_of(received: Accumulator) -> dict[str, Any]:
    """Return the members of a record that are known at the end, even if the prediction was cancelled or failed."""
    received.end = received.end or PredictionEnd({}, {}, {}, {})
    result, calls = received.result(), [call.end for call in received.tool_calls if call.end]
    return {
        "text": result.content,
        "reasoning": result.reasoning_content,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls],
    }


def written_text(received: Accumulator) -> str:
    """Return everything that the model wrote, including reasoning tags; tool calls follow the rest."""
    calls = [call.end or call.failure for call in received.tool_calls]
    texts = [fragment.content for fragment in received.fragments]
    return "".join([*texts, *(call.raw_content or "" for call in calls if call)])
