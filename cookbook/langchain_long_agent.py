# %% [markdown]
# # Run an agent for 200 tool calls in a small context window
#
# An agent reads a log of 200 ferries, one tool call each. That is more than 4,096
# tokens hold, so the conversation is summarized on the way. The tokens are counted
# by the server, so that every prompt fits, and nothing is dropped. A model that
# thinks before a call sees the thought again with the result.

# %%
from functools import partial
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# The loaded model must be trained for tool use.

# %%
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
# After `load()`, the profile has the length of the context window. The recipe uses
# at most 4,096 tokens of it. When half of them are full, all but the last four
# messages become a summary. The other half is for the request for the summary,
# which repeats these messages in a longer form, and for the response.
#
# By default, the middleware estimates tokens from the number of characters. With
# this counter, the server counts them in the model's own prompt template, the tools
# included. The prompt is shorter than LangChain's own, which has 500 tokens, and
# nothing is trimmed from what is summarized. Thoughts count as they are sent; the
# summary has none.

# %%
window = min(model.profile.get("max_input_tokens", 0), 4096)
count = partial(model.get_num_tokens_from_messages, tools=[next_ferry])
summarize = SummarizationMiddleware(
    model,
    trigger=("tokens", window // 2),
    keep=("messages", 4),
    token_counter=count,
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
# total. `dropped_tokens` would say that a server dropped a part of a prompt.
#
# Thoughts go back to the model as far as its chat template takes them, and nothing
# has to be set for it. `reasoning_replay` says what the template does with those in
# each place: that of the emulator copies them, like any text.

# %%
messages: list[Any] = []
prompts: list[int] = []
calls = thoughts = summaries = 0
replay: dict[str, str] = {}
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
            assert "dropped_tokens" not in response.response_metadata
            prompts.append(response.usage_metadata["input_tokens"])
            calls += len(response.tool_calls)
            thoughts += "reasoning_content" in response.additional_kwargs
            replay = response.response_metadata.get("reasoning_replay", replay)
            answer = response.text
        elif step.get("SummarizationMiddleware.before_model"):
            summaries += 1
    if not calls:
        break

# %%
print(f"The agent made {calls} tool calls and {summaries} summaries.")
print(f"It thought {thoughts} times. What becomes of earlier thoughts: {replay}")
print(f"The longest of {len(prompts)} prompts has {max(prompts):,} tokens.")
print("Response:", answer)
if total not in answer:
    raise SystemExit("The model did not read the whole log; take a larger model.")
assert calls >= len(passengers)
assert max(prompts) < window
