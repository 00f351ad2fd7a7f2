"""Raw completion as older clients request it (docs/protocol.md#legacy-completion)."""

from lmstudio_integrations.protocol.kv_config import KvConfigStack
from lmstudio_integrations.types.chat import ChatHistory, TextPart

_LAYER = "completeModeFormatting"
"""The layer with the template of a raw completion."""


def is_completion(stack: KvConfigStack) -> bool:
    """Return whether an older client requests raw completion (docs/protocol.md#legacy-completion)."""
    return any(layer.layer_name == _LAYER for layer in stack.layers)


def completion_prompt(history: ChatHistory) -> str:
    """Return the prompt of a raw completion: the texts of a conversation, without roles."""
    return "".join(part.text for message in history.messages for part in message.content if isinstance(part, TextPart))
