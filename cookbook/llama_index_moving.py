"""Moving from `llama-index-llms-lmstudio`: change the import, keep the settings, and get what was missing.

The names that the other package has (`model_name`, `base_url` with `/v1`, `request_timeout`, `additional_kwargs`) are
understood. What is not understood is refused, with the nearest name, instead of having no effect.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import asyncio
import os
from typing import Any

from llama_index.core.llms import ChatMessage

from lmstudio_integrations.llama_index import LMStudio  # was: from llama_index.llms.lmstudio import LMStudio

HOST = os.environ.get("LMSTUDIO_HOST")
SETTINGS: dict[str, Any] = {
    "model_name": os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct"),
    "base_url": f"http://{HOST}/v1" if HOST else None,
    "request_timeout": 120.0,
    "temperature": 0.5,
    "additional_kwargs": {"max_tokens": 40},
}


async def main() -> None:
    """Ask as before, then see the window, the counts and a stream that is truly asynchronous."""
    llm = await LMStudio(**SETTINGS).aload()
    print(f"a window of {llm.metadata.context_window} tokens")

    question = [ChatMessage(role="user", content="Why is the sky blue?")]
    response = llm.chat(question)
    print(response.message.content)
    assert response.raw is not None
    assert response.raw["usage"]["completion_tokens"] <= 40

    pieces = [chunk.delta or "" async for chunk in await llm.astream_chat(question)]
    print(f"{len(pieces)} pieces: {''.join(pieces)}")
    assert pieces


if __name__ == "__main__":
    asyncio.run(main())
