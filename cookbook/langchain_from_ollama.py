"""Migrating from `ChatOllama`: change the class and rename four settings.

An unknown setting raises an error that suggests the new name.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os
from typing import Any

from lmstudio_integrations.langchain import (
    ChatLMStudio,
)  # was: from langchain_ollama import ChatOllama

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")
RENAMED = {
    "num_ctx": "context_length",
    "num_predict": "max_tokens",
    "keep_alive": "ttl",
    "reasoning": "enable_thinking",
}


def error_of(**settings: Any) -> str:
    """Return the error that the settings raise."""
    try:
        ChatLMStudio(**settings)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Send a prompt; then show the error for each old name."""
    model = ChatLMStudio(  # was: ChatOllama(
        model=MODEL,  # was: "smollm2:135m"
        temperature=0.5,
        top_k=40,
        seed=7,
        context_length=2048,  # was: num_ctx=2048
        max_tokens=40,  # was: num_predict=40
        ttl=300,  # was: keep_alive="5m"; both take effect if this object loads it
        on_config_mismatch="ignore",  # no warning if it is loaded differently
    )
    response = model.invoke("Why is the sky blue?")
    print(response.text)
    assert response.text.strip()
    assert response.usage_metadata
    assert response.usage_metadata["output_tokens"] <= 40

    for old, new in RENAMED.items():
        assert f"did you mean {new!r}?" in error_of(model=MODEL, **{old: 1})


if __name__ == "__main__":
    main()
