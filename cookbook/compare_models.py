# %% [markdown]
# # Compare the speed of models
#
# Which of the loaded models is fast enough? This recipe certifies their speed, as
# `lmsi certify MODEL --rows speed` does, and plots it with matplotlib. Load the
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

# %% [markdown]
# ## Measure
#
# One model is measured at a time, and nothing is loaded in between. The prompts are
# made of random words, so that none of them comes from the server's prompt cache.

# %%
cards = [
    lms.certify(model.identifier, rows=["speed"])
    for model in lms.list_loaded_models("llm")
]
for card in cards:
    print(card)

# %% [markdown]
# ## Plot
#
# The card has each measurement. More is better in every `score`, so that of a time
# is one divided by its seconds.


# %%
def measured(card: lms.Card, case: str) -> float:
    """Return the median of what was measured."""
    observations = card.row("speed").observations
    return median(each.score for each in observations if each.case == case)


names = [card.model.identifier for card in cards]
rates = [measured(card, "alone") for card in cards]
firsts = [1000 / measured(card, "first token/100") for card in cards]

plot = Figure(figsize=(8, 1.4 + 0.4 * len(names)), layout="constrained")
rate_axes, time_axes = plot.subplots(1, 2, sharey=True)
rate_axes.barh(names, rates)
rate_axes.set_xlabel("tokens per second")
rate_axes.invert_yaxis()
time_axes.barh(names, firsts, color="tab:orange")
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
# - The time to the first token grows with the prompt: the card has it for 100,
#   1,000 and 8,000 words.
# - Without `rows`, the card also says what each model does with tools and formats:
#   [Is my model good enough?](../guides/certify.md)
