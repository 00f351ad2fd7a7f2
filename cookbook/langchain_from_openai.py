# %% [markdown]
# # Migrate from ChatOpenAI to ChatLMStudio
#
# Change the class of `ChatOpenAI(base_url=…)`, and keep the settings.

# %%
import lmstudio_integrations as lms
from lmstudio_integrations.langchain import (
    ChatLMStudio,
)  # was: from langchain_openai import ChatOpenAI

# %% [markdown]
# Any loaded model will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
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
print("Response:", response.text)
if not response.text.strip():
    raise SystemExit("The model did not write any text; take a larger model.")

# %% [markdown]
# Streams include token counts and the speed.

# %%
*_, last = model.stream("Describe the moon in one sentence.")
print("Tokens:", last.usage_metadata)
print(f"Tokens per second: {last.response_metadata['tokens_per_second']:.0f}")
assert last.usage_metadata

# %% [markdown]
# The OpenAI-compatible API has no tokenizer and no context length.

# %%
tokens = model.get_num_tokens("Why is the sky blue?")
limit = model.load().profile.get("max_input_tokens", 0)
print(f"The prompt has {tokens} of {limit:,} tokens.")
assert 0 < tokens < limit
