# %% [markdown]
# # Load and unload models in LangChain
#
# Load a model with your own settings, watch the progress, and unload it.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# Settings of a load need a model by its key. This is the key of a model that is
# loaded; `lmsi ls` lists all keys.

# %%
import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

key = lms.llm().get_info().model_key

# %% [markdown]
# The object holds only configuration. `load_policy="new_instance"` loads a separate
# instance for it, with these settings; after 60 idle seconds the server unloads it.

# %%
progress: list[float] = []
model = ChatLMStudio(
    model=key,
    load_policy="new_instance",
    load_config={"context_length": 2048, "eval_batch_size": 256},
    ttl=60,
    on_load_progress=progress.append,
    temperature=0,
)
profile = model.load().profile
print(f"Loaded: {progress[-1]:.0%}")
print("Context window:", profile.get("max_input_tokens"), "tokens")
assert profile.get("max_input_tokens") == 2048

# %% [markdown]
# The metadata of a response says which instance it is from.

# %%
response = model.invoke("Name a color, in one word.")
instance = response.response_metadata["instance_identifier"]
loaded = [each.identifier for each in lms.list_loaded_models("llm")]
print("The new instance is loaded:", instance in loaded)
assert response.response_metadata["context_length"] == 2048
assert instance in loaded

# %% [markdown]
# The native client unloads it.

# %%
lms.llm(instance).unload()
loaded = [each.identifier for each in lms.list_loaded_models("llm")]
print("The new instance is loaded:", instance in loaded)
assert instance not in loaded
