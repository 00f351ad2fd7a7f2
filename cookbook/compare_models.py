# %% [markdown]
# # Compare the speed of models
#
# LM Studio measures each response. This recipe sends the same prompts to every
# language model that is loaded, and plots the medians with matplotlib. Load the
# models first, with the context length and the GPU offload that you use.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    lms.llm()  # fails if no language model is loaded
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from pathlib import Path
from statistics import median

from IPython.display import SVG
from matplotlib.figure import Figure

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The models
#
# `require_loaded` makes sure that nothing is loaded in between, as LM Studio could
# unload another model for it.

# %%
names = [model.identifier for model in lms.list_loaded_models("llm")]
print("Models:", ", ".join(names))
models = [
    ChatLMStudio(model=name, load_policy="require_loaded", temperature=0)
    for name in names
]

# %% [markdown]
# ## Measure
#
# The first call of each model is not counted, as it fills caches. Only one call
# runs at a time. The prompts differ from their first words on, so that none of them
# comes from the server's prompt cache.

# %%
PROMPTS = [
    "Why do ships float? Answer in one short sentence.",
    "What is a lighthouse for? Answer in one short sentence.",
    "When is high tide? Answer in one short sentence.",
]


def measure(model: ChatLMStudio) -> tuple[float, float]:
    """Return the medians: tokens per second, seconds to the first token."""
    model.invoke("Name one color.")
    responses = [model.invoke(prompt).response_metadata for prompt in PROMPTS]
    return (
        median(each["tokens_per_second"] for each in responses),
        median(each["time_to_first_token_sec"] for each in responses),
    )


speeds = [measure(model) for model in models]
for name, (rate, first) in zip(names, speeds, strict=True):
    print(f"{name}: {rate:.0f} tokens/s, first token after {first * 1000:.0f} ms")
    assert rate > 0
    assert first > 0

# %% [markdown]
# ## Plot

# %%
plot = Figure(figsize=(8, 1.4 + 0.4 * len(names)), layout="constrained")
rate_axes, time_axes = plot.subplots(1, 2, sharey=True)
rate_axes.barh(names, [rate for rate, _ in speeds])
rate_axes.set_xlabel("tokens per second")
rate_axes.invert_yaxis()
time_axes.barh(names, [first * 1000 for _, first in speeds], color="tab:orange")
time_axes.set_xlabel("time to first token, in ms")

path = Path("output/compare_models.svg")
path.parent.mkdir(exist_ok=True)
plot.savefig(path)
SVG(filename=path)

# %% [markdown]
# ## Read the numbers
#
# - Tokens of two models are not the same: one may need more of them for a text.
# - A reasoning model writes its reasoning first; its first token is not yet text.
# - The time to the first token grows with the prompt. Use prompts as long as yours.
