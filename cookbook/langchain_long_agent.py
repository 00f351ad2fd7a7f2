# %% [markdown]
# # Run an agent for 200 tool calls in a small context window
#
# An agent reads a log of 200 ferries, one tool call each. That is more than 4,096
# tokens hold, so the conversation is [summarized](../guides/long-conversations.md)
# on the way, and nothing is dropped. The model must be trained for tool use.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    info = lms.llm().get_info()
except lms.LMStudioError as error:
    raise SystemExit(error) from None
print("Model:", info.model_key)
if not info.trained_for_tool_use:
    able = [m for m in lms.list_downloaded_models("llm") if m.trained_for_tool_use]
    names = ", ".join(m.model_key for m in able) or "none"
    raise SystemExit(f"This recipe needs tool use; your models with it: {names}.")

# %%
from functools import partial
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0).load()

# %% [markdown]
# ## The log
#
# Each call of the tool returns the next entry.

# %%
passengers = [40 + 37 * number % 160 for number in range(200)]
total = f"{sum(passengers):,}"
entries = [
    f"Ferry {number}: {passengers[number - 1]} passengers, "
    f"{sum(passengers[:number]):,} so far. Pier {number % 7 + 1}, on time, "
    f"{number % 5} dogs, {number % 9} bicycles, wind from the west, calm sea."
    for number in range(1, 201)
]
log = iter([*entries, f"End of the log: 200 ferries, {total} passengers."])


def next_ferry() -> str:
    """Return the next ferry of the log."""
    return next(log, "There are no more ferries.")


# %% [markdown]
# ## The middleware
#
# When half of the window is full, all but the last four messages become a summary.
# The other half is for the request for the summary, which repeats these messages,
# and for the response. The server counts the tokens, tools included; by default,
# the middleware estimates them from the number of characters.

# %%
window = min(model.profile.get("max_input_tokens", 0), 4096)
summarize = SummarizationMiddleware(
    model,
    trigger=("tokens", window // 2),
    keep=("messages", 4),
    token_counter=partial(model.get_num_tokens_from_messages, tools=[next_ferry]),
    summary_prompt="Summarize what was read of the log, and the last total, "
    "in three sentences:\n{messages}",
    trim_tokens_to_summarize=None,
)
agent = create_agent(
    model,
    [next_ferry],
    system_prompt="Read the log to its end with next_ferry, one ferry at a time. "
    "Then say how many passengers there were.",
    middleware=[summarize],
)

# %% [markdown]
# ## Run
#
# Small models sometimes stop early, so the agent is asked again until it knows the
# total.

# %%
messages: list[Any] = []
prompts: list[int] = []
calls = summaries = 0
answer = ""
while total not in answer and len(prompts) < 500:
    messages = [*messages, ("user", "Go on with the log.")]
    question: Any = {"messages": messages}
    steps: Any = agent.stream(
        question, {"recursion_limit": 2000}, stream_mode=["updates", "values"]
    )
    for mode, step in steps:
        if mode == "values":
            messages = step["messages"]
        elif "model" in step:
            (response,) = step["model"]["messages"]
            prompts.append(response.usage_metadata["input_tokens"])
            calls += len(response.tool_calls)
            answer = response.text
        elif step.get("SummarizationMiddleware.before_model"):
            summaries += 1
    if not calls:
        break

# %%
print(f"The agent made {calls} tool calls and {summaries} summaries.")
print(f"The longest of {len(prompts)} prompts has {max(prompts):,} tokens.")
print("Response:", answer)
if total not in answer:
    raise SystemExit("The model did not read the whole log; take a larger model.")
assert calls >= len(passengers)
assert max(prompts) < window
