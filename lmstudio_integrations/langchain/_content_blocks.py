"""Keeps the tags of a thought in LangChain's standard content blocks, from which programs make messages anew.

Core makes the blocks. It asks a translator of the provider first, and has none for us.
"""

from langchain_core.messages import AIMessage
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock

from lmstudio_integrations._adapters.thoughts import TAGS
from lmstudio_integrations.langchain._responses import PROVIDER


def with_tags(message: AIMessage) -> list[ContentBlock]:
    """Return the blocks that core makes of a message, with the tags in `extras` of the thought.

    Raises:
        NotImplementedError: If there are no tags; core makes the blocks then.
    """
    tags = message.additional_kwargs.get(TAGS)
    if not tags:
        raise NotImplementedError
    blocks = message.model_copy(update={"response_metadata": {}}).content_blocks
    for block in blocks:
        if block["type"] == "reasoning":
            block["extras"] = {TAGS: tags}
    return blocks


def register() -> None:
    """Let core ask us for the blocks of our messages."""
    register_translator(PROVIDER, with_tags, with_tags)
