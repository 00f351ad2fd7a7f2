"""Moving from `ChatOllama`: change the class and four names; a name that nothing reads is refused.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os
from typing import Any

from lmstudio_integrations.langchain import ChatLMStudio  # was: from langchain_ollama import ChatOllama

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")
RENAMED = {
    "num_ctx": "context_length",
    "num_predict": "max_tokens",
    "keep_alive": "ttl",
    "reasoning": "enable_thinking",
}


def refusal(**settings: Any) -> str:
    """Return why settings are not taken."""
    try:
        ChatLMStudio(**settings)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    """Ask as before; then see what is said of the old names."""
    model = ChatLMStudio(  # was: ChatOllama(
        model=MODEL,  # was: "smollm2:135m"
        temperature=0.5,
        top_k=40,
        seed=7,
        context_length=2048,  # was: num_ctx=2048; acts when this object loads the model
        max_tokens=40,  # was: num_predict=40
        ttl=300,  # was: keep_alive="5m"; acts when this object loads the model
        on_config_mismatch="ignore",  # with another window, too, if it is loaded already
    )
    answer = model.invoke("Why is the sky blue?")
    print(answer.text)
    assert answer.text.strip()
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] <= 40

    for old, new in RENAMED.items():
        assert f"did you mean {new!r}?" in refusal(model=MODEL, **{old: 1})


if __name__ == "__main__":
    main()
