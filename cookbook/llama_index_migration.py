# %% [markdown]
# # Migrate from llama-index-llms-lmstudio
#
# Change the import, and keep the settings: `model_name`, `base_url` with `/v1`,
# `request_timeout` and `additional_kwargs` are accepted.

# %%
from llama_index.core.llms import ChatMessage

import lmstudio_integrations as lms
from lmstudio_integrations.llama_index import (
    LMStudio,
)  # was: from llama_index.llms.lmstudio import LMStudio

# %% [markdown]
# Any loaded model will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
llm = LMStudio(
    # model_name="…" still works, and without it any loaded model responds
    # base_url="http://localhost:1234/v1" still works; this machine is the default
    request_timeout=120.0,
    temperature=0.0,
    additional_kwargs={"top_p": 0.9},
)

# %% [markdown]
# The context window comes from the server. `load()` gets it before the first call.

# %%
llm.load()
print(f"Context window: {llm.metadata.context_window:,} tokens")

# %% [markdown]
# Prompts and streams work as before.

# %%
messages = [ChatMessage(role="user", content="Describe the moon in one sentence.")]
response = llm.chat(messages)
print("Response:", response.message.content)
assert response.raw is not None
print("Tokens of the response:", response.raw["usage"]["completion_tokens"])

deltas = [chunk.delta or "" for chunk in llm.stream_chat(messages)]
print("Streamed response:", "".join(deltas))
if not "".join(deltas).strip():
    raise SystemExit("The model did not write any text; take a larger model.")
