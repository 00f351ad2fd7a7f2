# %% [markdown]
# # Check whether a model is good enough for agents
#
# An agent needs a model that calls tools, fills schemas and, if it reasons, reads
# the thoughts behind its calls. Ask with your own tool, schema and requests: a
# model is good enough for a task, not in general.

# %%
from typing import Literal

import lmstudio_integrations as lms

Place = Literal["island", "lighthouse", "mainland"]


class Trip(lms.BaseModel):
    """A trip with the ferry."""

    to: Place
    passengers: int


booked: list[Trip] = []


def book(to: Place, passengers: int) -> str:
    """Book a trip with the ferry."""
    booked.append(Trip(to=to, passengers=passengers))
    return "The trip is booked."


# %% [markdown]
# Small mistakes in a call are [corrected](../guides/tools-with-small-models.md), as
# in an agent. The server keeps the form of a schema, so the content may be wrong.

# %%
TRIPS = {
    "To the island, with my two children.": Trip(to="island", passengers=3),
    "A ticket for one to the lighthouse.": Trip(to="lighthouse", passengers=1),
    "My wife and I go to the mainland.": Trip(to="mainland", passengers=2),
}
SETTINGS = lms.LlmPredictionConfig(temperature=0, max_tokens=2000)
model = lms.llm("qwen/qwen3-1.7b")

for request, trip in TRIPS.items():
    booked.clear()
    try:
        model.act(request, [book], config=SETTINGS)
    except lms.LMStudioPredictionError as error:
        print(error)
    result = model.respond(request, response_format=Trip, config=SETTINGS)
    print(f"{request}\n  tool:", booked == [trip], booked)
    print("  schema:", result.parsed == trip.model_dump(), result.parsed)

# %% [markdown]
# The chat template should show the thoughts of the current call: `kept`, or
# `copied` as text. If it does not, see [Reasoning](../guides/reasoning.md).

# %%
print(model.get_reasoning_replay().by_place)
