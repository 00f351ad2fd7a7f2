"""Moving from `ChatOpenAI(base_url=…)`: change the class, keep the settings, and get what was missing.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os

from lmstudio_integrations.langchain import ChatLMStudio  # was: from langchain_openai import ChatOpenAI

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Ask as before, then for what the OpenAI layer does not tell."""
    model = ChatLMStudio(  # was: ChatOpenAI(
        model=MODEL,
        # was: base_url="http://localhost:1234/v1"; now the LM Studio of this machine is found
        # was: api_key="lm-studio"; now only if the server asks for a token
        temperature=0.5,
        max_tokens=40,
        timeout=120,
        max_retries=2,
    )

    answer = model.invoke("Why is the sky blue?")
    print(answer.text)
    assert answer.text.strip()

    *_, last = model.stream("Why is the sky blue?")
    print(last.usage_metadata, f"{last.response_metadata['tokens_per_second']:.0f} tokens a second")
    assert last.usage_metadata
    assert last.usage_metadata["output_tokens"] <= 40

    tokens = model.get_num_tokens("Why is the sky blue?")
    window = model.load_profile().get("max_input_tokens", 0)
    print(f"{tokens} tokens of {window}")
    assert 0 < tokens < window


if __name__ == "__main__":
    main()
