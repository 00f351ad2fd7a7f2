"""Migrating from `llama-index-llms-lmstudio`: change the import, keep the settings.

The settings of that package (`model_name`, `base_url` with `/v1`,
`request_timeout`, `additional_kwargs`) are accepted. An unknown setting raises an
error that suggests the closest name.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import asyncio
import os
from typing import Any

from llama_index.core.llms import ChatMessage

from lmstudio_integrations.llama_index import (
    LMStudio,
)  # was: from llama_index.llms.lmstudio import LMStudio

HOST = os.environ.get("LMSTUDIO_HOST")
SETTINGS: dict[str, Any] = {
    "model_name": os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct"),
    "base_url": f"{HOST}/v1" if HOST else None,
    "request_timeout": 120.0,
    "temperature": 0.5,
    "additional_kwargs": {"max_tokens": 40},
}


async def main() -> None:
    """Send a prompt as before; then read the context window, and stream."""
    llm = await LMStudio(**SETTINGS).aload()
    print(f"context window: {llm.metadata.context_window} tokens")

    messages = [ChatMessage(role="user", content="Why is the sky blue?")]
    response = llm.chat(messages)
    print(response.message.content)
    assert response.raw is not None
    assert response.raw["usage"]["completion_tokens"] <= 40

    deltas = [chunk.delta or "" async for chunk in await llm.astream_chat(messages)]
    print(f"{len(deltas)} deltas: {''.join(deltas)}")
    assert deltas


if __name__ == "__main__":
    asyncio.run(main())
