# %% [markdown]
# # Run a deep agent with files and a sub-agent
#
# `deepagents` builds agents for long tasks: they keep notes in files, and give work
# to sub-agents. Here an agent has a sub-agent look something up, and writes a
# report. The model must be trained for tool use.

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
from typing import Any

from deepagents import SubAgent, create_deep_agent
from langchain_core.messages import AIMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)

# %% [markdown]
# ## The context window
#
# `deepagents` sends the descriptions of its tools with each call, here almost 3,000
# tokens. A context window of 4,096 tokens is full after a few steps.

# %%
window = model.load().profile.get("max_input_tokens", 0)
print(f"Context window: {window:,} tokens")
if window < 8192:
    raise SystemExit(
        "This recipe needs a context window of 8,192 tokens; unload the model, "
        "then run `lms load KEY -c 8192`."
    )

# %% [markdown]
# ## The sub-agent
#
# It has a conversation of its own, and only its last message goes back. So the
# texts that it reads do not fill the context window of the agent that called it.
# The search is a dictionary here; take yours.

# %%
TEXTS = {
    "ferry": "The ferry to the island leaves every hour, and costs nine euros.",
    "pool": "The pool in Park Road opens at noon, and costs four euros.",
}


def search(keyword: str) -> str:
    """Return what is known of a keyword: ferry or pool."""
    print(f"Sub-agent, search: {keyword}")
    return TEXTS.get(keyword.lower(), "Nothing found.")


researcher = SubAgent(
    name="researcher",
    description="Looks up prices and times in the town.",
    system_prompt="Look up what you are asked with `search`. Reply with the facts.",
    tools=[search],
)

# %% [markdown]
# ## The agent
#
# Its files are part of its state, not files of this computer: `deepagents` writes
# to your disk only with another `backend`. That is a good start with a small model,
# which makes mistakes.

# %%
agent = create_deep_agent(
    model,
    subagents=[researcher],
    system_prompt="Have the researcher look things up. "
    "Then write a short report to /report.md.",
)

# %% [markdown]
# ## Run
#
# The stream shows the steps of the agent itself. The steps of the sub-agent come in
# between: its search prints a line.

# %%
question: Any = {"messages": [("user", "What does the ferry to the island cost?")]}
config: Any = {"recursion_limit": 40}
state: dict[str, Any] = {}
seen = 0
for state in agent.stream(question, config, stream_mode="values"):
    for message in state["messages"][seen:]:
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                print(f"Tool call: {call['name']}({', '.join(call['args'])})")
            if message.text:
                print("Response:", message.text)
    seen = len(state["messages"])

# %%
files = state.get("files", {})
if "/report.md" not in files:
    raise SystemExit("The model did not write the report; take a larger model.")
report = files["/report.md"]["content"]
print(f"/report.md:\n{report}")
if "nine" not in report.lower() and "9" not in report:
    raise SystemExit("The model did not report the price; take a larger model.")
