# %% [markdown]
# # Read the reasoning of a thinking model in LangChain
#
# Reasoning is separate from the text: read it, stream it, or turn it off.

# %%
from langchain_core.messages import AIMessage

from lmstudio_integrations.langchain import ChatLMStudio

QUESTION = "What is 17 * 23?"


def reasoning_of(message: AIMessage) -> str:
    """Return the reasoning in a message or a chunk."""
    blocks = message.content_blocks
    return "".join(
        block.get("reasoning", "")
        for block in blocks
        if block["type"] == "reasoning"
    )


# %% [markdown]
# `content_blocks` has the reasoning and the text; `text` never contains reasoning.

# %%
model = ChatLMStudio(temperature=0)
response = model.invoke(QUESTION)
if not reasoning_of(response):
    raise SystemExit(
        "This recipe needs a model with reasoning; "
        "load one in LM Studio, for example qwen/qwen3-4b."
    )
print("Reasoning:", reasoning_of(response))
print("Text:", response.text)
assert "391" in response.text

# %% [markdown]
# In a stream, the chunks with reasoning come first.

# %%
kinds: list[str] = []
for chunk in model.stream(QUESTION):
    kind = "reasoning" if reasoning_of(chunk) else "text" if chunk.text else ""
    if kind and kind not in kinds:
        kinds.append(kind)
print(kinds)
assert kinds == ["reasoning", "text"]

# %% [markdown]
# Some models can respond without reasoning.

# %%
direct = model.invoke(QUESTION, enable_thinking=False)
print("Reasoning:", reasoning_of(direct) or "none")
print("Text:", direct.text)
