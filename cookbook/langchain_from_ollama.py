# %% [markdown]
# # Migrate from ChatOllama to ChatLMStudio
#
# Change the class, and rename four settings.

# %%
from typing import Any

from pydantic import ValidationError

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import (
    ChatLMStudio,
)  # was: from langchain_ollama import ChatOllama

# %% [markdown]
# Any loaded model will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
model = ChatLMStudio(  # was: ChatOllama(
    # was: model="qwen3:4b"; keys differ, and without one any loaded model responds
    temperature=0,
    top_k=40,
    seed=7,
    max_tokens=1000,  # was: num_predict=1000
)
response = model.invoke("Describe the moon in one sentence.")
print("Response:", response.text)
if not response.text.strip():
    raise SystemExit("The model did not write any text; take a larger model.")

# %% [markdown]
# An old name is an error that suggests the new one.

# %%
RENAMED = {
    "num_ctx": "context_length",
    "num_predict": "max_tokens",
    "keep_alive": "ttl",
    "reasoning": "enable_thinking",
}
for old, new in RENAMED.items():
    settings: dict[str, Any] = {old: 1}
    problem = ""
    try:
        ChatLMStudio(**settings)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
    print(problem)
    assert f"did you mean {new!r}?" in problem
