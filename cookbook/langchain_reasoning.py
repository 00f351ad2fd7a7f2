"""Reasoning: read it separately from the text, stream it, and turn it off.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set
`LMSTUDIO_REASONING_MODEL` to use another model whose reasoning can be turned off.
"""

import os

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_REASONING_MODEL", "qwen/qwen3-4b")
QUESTION = "What is 17 * 23?"


def main() -> None:
    """Send the question three times: whole, as a stream, and without reasoning."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=2000)

    response = model.invoke(QUESTION)
    reasoning = "".join(
        block.get("reasoning", "")
        for block in response.content_blocks
        if block["type"] == "reasoning"
    )
    print(f"Reasoning: {reasoning}\nText: {response.text}")
    assert reasoning.strip()
    assert "391" in response.text

    types: list[str] = []
    for chunk in model.stream(QUESTION):
        types += [block["type"] for block in chunk.content_blocks]
    assert types.index("reasoning") < types.index("text")

    direct = model.invoke(QUESTION, enable_thinking=False)
    print(f"Without reasoning: {direct.text}")
    assert all(block["type"] != "reasoning" for block in direct.content_blocks)


if __name__ == "__main__":
    main()
