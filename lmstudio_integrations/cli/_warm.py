"""`load --warm`: reads what is processed ahead of the first question, and processes it."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.cli._common import note, progress_bar
from lmstudio_integrations.cli._formatting import duration

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import Client
    from lmstudio_integrations.types.config import LlmPredictionConfig
    from lmstudio_integrations.types.models import ModelInstanceInfo

_HINT = "--warm"
_STDIN = Path("-")
_MEMBERS = {"messages", "tools"}


def read_prefix(path: Path) -> "tuple[Any, LlmPredictionConfig]":
    """Return the messages of a file, or its text as the system prompt; and settings with its tools.

    All of it is checked here: a model may take minutes to load.

    Raises:
        typer.BadParameter: If the file has another form.
        LMStudioValueError: If a message or a tool is invalid, or the system prompt is empty.
    """
    from lmstudio_integrations.client.predictions.prefill import prefix_of  # noqa: PLC0415 - slow

    messages, tools = _parts(path)
    prefix_of(messages)
    return messages, _settings(path, tools)


def _settings(path: Path, tools: list[Any]) -> "LlmPredictionConfig":
    """Return settings with tools, as the adapters send them: tools in another form are another prompt."""
    from lmstudio_integrations._adapters.tool_settings import tool_settings  # noqa: PLC0415 - slow
    from lmstudio_integrations.types.config import LlmPredictionConfig  # noqa: PLC0415

    for tool in tools:
        if not is_object(tool) or tool.get("type") != "function" or not is_object(tool.get("function")):
            raise typer.BadParameter(
                f'{path}: a tool must be {{"type": "function", "function": {{"name": …, "parameters": …}}}}; '
                f"got {shortened(repr(tool))}",
                param_hint=_HINT,
            )
    return LlmPredictionConfig.parse(tool_settings(tools, None))


def _parts(path: Path) -> tuple[Any, list[Any]]:
    """Return the messages of a file, or its text; and its tools."""
    from pydantic_core import from_json  # noqa: PLC0415 - slow

    data = sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
    try:
        value = from_json(data)
    except ValueError as error:
        if path.suffix.lower() == ".json":
            raise typer.BadParameter(f"{path} is not JSON: {error}", param_hint=_HINT) from None
        value = None
    if is_list(value):
        value = {"messages": value}
    if is_object(value):
        tools = value.get("tools") or []
        messages = value.get("messages")
        if not (messages or tools) or not is_list(tools) or value.keys() - _MEMBERS:
            raise typer.BadParameter(
                f'{path} must hold a list of messages, or {{"messages": […], "tools": […]}}', param_hint=_HINT
            )
        return ({"messages": messages} if messages else None), tools
    try:
        return data.decode(), []
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8", param_hint=_HINT) from None


def process(
    client: "Client",
    info: "ModelInstanceInfo",
    path: Path,
    prefix: "tuple[Any, LlmPredictionConfig]",
    device: str | None,
) -> None:
    """Process the messages and tools of a file on a loaded instance, with a progress bar."""
    messages, settings = prefix
    started = time.monotonic()
    with progress_bar(f"Processing {path}") as show:
        client.llm.model(info.identifier, load_policy="require_loaded", device=device).warm(
            messages, config=settings, on_prompt_processing_progress=show
        )
    note(f"Processed {path} ({duration(time.monotonic() - started)}).")
