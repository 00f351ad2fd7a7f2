# %% [markdown]
# # Read the reasoning of a thinking model in LangChain
#
# Reasoning is separate from the text: read it, stream it, or turn it off.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# The loaded model must be one that reasons before it responds. The server does not
# know which models do, so the recipe finds out from the first response.

# %%
from langchain_core.messages import AIMessage

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %%
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
    names = ", ".join(m.model_key for m in lms.list_downloaded_models("llm"))
    raise SystemExit(f"This recipe needs reasoning; your models: {names}.")
print("Reasoning:", reasoning_of(response))
print("Text:", response.text)
if "391" not in response.text:
    raise SystemExit("The model did not find 391; take a larger model.")

# %% [markdown]
# In a stream, the chunks with reasoning come first.

# %%
kinds: list[str] = []
for chunk in model.stream(QUESTION):
    kind = "reasoning" if reasoning_of(chunk) else "text" if chunk.text else ""
    if kind and kind not in kinds:
        kinds.append(kind)
print("Order of the stream:", ", ".join(kinds))
if kinds != ["reasoning", "text"]:
    raise SystemExit("The model did not reason first; take a larger model.")

# %% [markdown]
# Some models can respond without reasoning.

# %%
direct = model.invoke(QUESTION, enable_thinking=False)
print("Reasoning:", reasoning_of(direct) or "none")
print("Text:", direct.text)
