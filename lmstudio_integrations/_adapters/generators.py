"""Generator plugins in place of a model: `model="plugin:owner/name"` (docs/protocol.md#generators).

A generator takes a conversation and tools. What only models have is an error if the user has set it, and is left out
if the adapters send it by themselves. `generation_settings.py` resolves the calls, `runtime.py` makes the handles.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from lmstudio_integrations.client.transport.connect import addresses
from lmstudio_integrations.errors import LMStudioValueError

_PREFIX = "plugin:"

_OF_MODELS = ("preset", "reasoning_effort", "load_config", "context_length", "ttl", "load_policy", "instances")
"""Fields that only models have, besides the prediction settings."""

_ARGUMENTS = {"log_probs": "logprobs", "structured": "response_format"}
"""Native settings that only models have and that are no fields, and the argument that asks for each."""

_REQUIRED_CALL = {"type": "generic", "mode": "required"}

_WITHOUT_MODEL = {"context_overflow_policy": None, "check_context": False}
"""What the adapters do with models by default, and not with generators."""


def plugin_of(model: object) -> str | None:
    """Return the identifier of the generator plugin that a `model` names; `None` for a model."""
    return model.removeprefix(_PREFIX) if isinstance(model, str) and model.startswith(_PREFIX) else None


def generator_error(model: str | None) -> LMStudioValueError:
    """Return the error about a generator where only a model helps."""
    return LMStudioValueError(
        f"model={model!r} is a generator plugin, which takes the place of a model only in chats: it does not complete "
        "or embed texts, has no tokenizer and no context window, and cannot be loaded; use a model"
    )


def generator_settings(
    values: Mapping[str, Any], requested: Mapping[str, Any], fields: Mapping[str, FieldInfo], native: Mapping[str, str]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the settings of a call of a generator, and those that are sent: tools.

    A required call cannot be sent; the adapters report that it is missing, as with models that do not make it.

    Args:
        values: The settings by the names of the adapters' fields.
        requested: The native settings for what the call requests besides them.
        fields: The fields of the adapter.
        native: The fields that are prediction settings.

    Raises:
        LMStudioValueError: If there are settings that only models have; the error names all of them.
    """
    names = [
        name
        for name in (*native, *_OF_MODELS)
        if name in fields and values[name] is not None and values[name] != fields[name].default
    ]
    names += [name for setting, name in _ARGUMENTS.items() if setting in requested]
    if len(addresses.hosts_of(values["host"])) > 1:
        names.append("several hosts")
    if names:
        by_tool = "; for structured output, offer a tool (method='function_calling')"
        raise LMStudioValueError(
            f"the generator plugin {plugin_of(values['model'])!r} accepts a conversation and tools, but not "
            f"{', '.join(names)}{by_tool if 'response_format' in names else ''}"
        )
    sent = {name: setting for name, setting in requested.items() if setting != _REQUIRED_CALL}
    return {**values, **_WITHOUT_MODEL}, sent
