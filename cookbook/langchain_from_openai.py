# %% [markdown]
# # Migrate from ChatOpenAI to ChatLMStudio
#
# Change the class of `ChatOpenAI(base_url=…)`, and keep the settings.

# %%
from lmstudio_integrations.langchain import (
    ChatLMStudio,
)  # was: from langchain_openai import ChatOpenAI

model = ChatLMStudio(  # was: ChatOpenAI(
    # was: model="…"; still works, and without it any loaded model responds
    # was: base_url="http://localhost:1234/v1"; this machine is the default
    # was: api_key="lm-studio"; only if the server requires a token
    temperature=0,
    timeout=120,
    max_retries=2,
)

# %% [markdown]
# Prompts work as before.

# %%
response = model.invoke("Describe the moon in one sentence.")
print(response.text)
assert response.text.strip()

# %% [markdown]
# Streams include token counts and the speed.

# %%
*_, last = model.stream("Describe the moon in one sentence.")
print(last.usage_metadata)
print(f"tokens per second: {last.response_metadata['tokens_per_second']:.0f}")
assert last.usage_metadata

# %% [markdown]
# The OpenAI-compatible API has no tokenizer and no context length.

# %%
tokens = model.get_num_tokens("Why is the sky blue?")
limit = model.load().profile.get("max_input_tokens", 0)
print(f"{tokens} of {limit} tokens")
assert 0 < tokens < limit
