"""Reasoning: what the model thinks comes apart from what it says, whole and streamed, and can be switched off.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_REASONING_MODEL` names another
model. Take one that thinks before it answers, and can do without.
"""

import os

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_REASONING_MODEL", "qwen/qwen3-4b")
QUESTION = "What is 17 * 23?"


def main() -> None:
    """Ask for a sum three times."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=2000)

    answer = model.invoke(QUESTION)
    thoughts = "".join(block.get("reasoning", "") for block in answer.content_blocks if block["type"] == "reasoning")
    print(f"It thought: {thoughts}\nIt said: {answer.text}\nIt cost: {answer.usage_metadata}")
    assert thoughts.strip()
    assert "391" in answer.text

    kinds: list[str] = []
    for chunk in model.stream(QUESTION):
        kinds += [block["type"] for block in chunk.content_blocks]
    assert kinds.index("reasoning") < kinds.index("text")

    quick = model.invoke(QUESTION, enable_thinking=False)
    print(f"Without a thought: {quick.text}")
    assert all(block["type"] != "reasoning" for block in quick.content_blocks)


if __name__ == "__main__":
    main()
