# %% [markdown]
# # Route an agent, guard a tool call and classify with decisions in LangChain
#
# A decision is a typed question with a probability for each answer. Here, a small
# model decides which model answers a question, whether a tool call is safe to run,
# and which of its own answers to keep.

# %%
import csv
import warnings
from pathlib import Path

from langchain.agents import create_agent
from langchain.agents.middleware import AutoModeMiddleware, ModelRouterMiddleware
from langchain.agents.middleware.model_router import ModelChoice
from langchain_core.decisions import Choice, ChoiceAnswer, ClassifierRequest
from langchain_core.messages import HumanMessage, ToolMessage

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioClassifier

warnings.filterwarnings("ignore", "The middleware .* is in beta")

classifier = LMStudioClassifier(model="qwen/qwen3-1.7b", load_policy="explicit")
small = ChatLMStudio(model="qwen/qwen3-1.7b", load_policy="explicit")
large = ChatLMStudio(model="qwen/qwen3-14b", load_policy="explicit")

# %% [markdown]
# ## Route between a small and a large model
#
# The router asks which description fits the question, and that model answers.

# %%
router = ModelRouterMiddleware(
    choices={
        "small": ModelChoice(small, "a time or a price of a ferry"),
        "large": ModelChoice(large, "a plan for a journey of several days"),
    },
    instructions="Which of these is asked for?",
    classifier=classifier,
)
agent = create_agent(large, middleware=[router])
for question in (
    "What is the price of the ferry?",
    "Make a plan for several days on the islands.",
):
    state = agent.invoke({"messages": [HumanMessage(question)]})
    route = state["model_route"]
    print(f"{question} {route.choice} ({route.confidence:.0%})")
    print(f"  {state['messages'][-1].text}")

# %% [markdown]
# ## Guard a tool call
#
# Before the tool runs, the guard asks whether the user has agreed to what it does.
# The model gets the reason why a call was blocked.


# %%
def cancel_booking(number: int) -> str:
    """Cancel a booking of a ferry."""
    return f"Booking {number} is canceled."


guard = AutoModeMiddleware(tools=["cancel_booking"], classifier=classifier)
agent = create_agent(large, tools=[cancel_booking], middleware=[guard])
for request in ("Please cancel my booking 17.", "Is my booking 17 still valid?"):
    state = agent.invoke({"messages": [HumanMessage(request)]})
    calls = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    print(f"{request} {', '.join(each.status for each in calls)}")
    print(f"  {state['messages'][-1].text}")

# %% [markdown]
# ## Keep what the small model is sure of
#
# Labeled examples say how sure is sure enough: at most one of ten kept answers may
# be wrong. The large model answers the others.

# %%
PRODUCTS = ("lamp", "kettle", "radio", "chair", "clock")
product = Choice(
    instructions="Which product is the review about?",
    criteria=dict.fromkeys(PRODUCTS),
)


def ask(model: LMStudioClassifier, texts: list[str]) -> list[ChoiceAnswer]:
    """Return the product of each text."""
    requests = [
        ClassifierRequest(state=text, questions={"it": product}) for text in texts
    ]
    return [response.choices["it"] for response in model.batch(requests)]


with Path("data/reviews.csv").open(encoding="utf-8", newline="") as file:
    labeled = list(csv.DictReader(file))
answers = ask(classifier, [row["text"] for row in labeled])
calibration = lms.calibrate(
    answers, [row["product"] for row in labeled], error_rate=0.1
)
print(f"Kept from {calibration.threshold:.0%} on", end=": ")
print(f"{calibration.kept} of {len(labeled)}, {calibration.errors} wrong")

# %%
REVIEWS = ["The lamp is broken.", "It never boils.", "A lovely, comfortable chair."]
expert = LMStudioClassifier(model="qwen/qwen3-14b", load_policy="explicit")
for text, answer in zip(REVIEWS, ask(classifier, REVIEWS), strict=True):
    if calibration.keeps(answer):
        print(f"{text} {answer.choice} ({answer.confidence:.0%})")
    else:
        (better,) = ask(expert, [text])
        print(f"{text} {better.choice}, says the large model")
