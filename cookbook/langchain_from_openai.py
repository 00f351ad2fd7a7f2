"""Migrating from `ChatOpenAI(base_url=…)`: change the class, keep the settings.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os

from lmstudio_integrations.langchain import (
    ChatLMStudio,
)  # was: from langchain_openai import ChatOpenAI

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Send a prompt as before; then read what the OpenAI-compatible API lacks."""
    model = ChatLMStudio(  # was: ChatOpenAI(
        model=MODEL,
        # was: base_url="http://localhost:1234/v1"; this machine is the default
        # was: api_key="lm-studio"; only if the server requires a token
        temperature=0.5,
        max_tokens=40,
        timeout=120,
        max_retries=2,
    )

    response = model.invoke("Why is the sky blue?")
    print(response.text)
    assert response.text.strip()

    *_, last = model.stream("Why is the sky blue?")
    print(
        last.usage_metadata,
        f"{last.response_metadata['tokens_per_second']:.0f} tokens per second",
    )
    assert last.usage_metadata
    assert last.usage_metadata["output_tokens"] <= 40

    tokens = model.get_num_tokens("Why is the sky blue?")
    limit = model.load_profile().get("max_input_tokens", 0)
    print(f"{tokens} tokens of {limit}")
    assert 0 < tokens < limit


if __name__ == "__main__":
    main()
