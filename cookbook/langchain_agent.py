# %% [markdown]
# # Run an agent with tools in LangChain
#
# `create_agent` runs the tools that the model calls, until there is a final
# response. The model must be trained for tool use.

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

from langchain.agents import create_agent

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)

# %% [markdown]
# The tools are plain functions. The model sees their names, docstrings and types.


# %%
def departure(destination: str) -> str:
    """Return the departures of the ferries to a destination."""
    return f"From the north pier to the {destination}: every hour until 18:30."


def weather(place: str) -> str:
    """Return the weather at a place."""
    return f"{place}: rain, 12 degrees."


agent = create_agent(
    model,
    tools=[departure, weather],
    system_prompt="Look up departures and the weather. Answer in one sentence.",
)

# %% [markdown]
# The stream has the messages of the tools, and those of the model token by token.
# The text after the last tool is the final response.

# %%
text = "When does the last ferry to the island leave? Do I need an umbrella?"
question: Any = {"messages": [("user", text)]}
steps: Any = agent.stream(question, stream_mode="messages")

called: set[str] = set()
response = ""
for token, _ in steps:
    if token.type == "tool":
        print(f"Tool {token.name}: {token.text}")
        called.add(token.name)
        response = ""
    else:
        response += token.text
print("Response:", response)
if called != {"departure", "weather"}:
    raise SystemExit("The model did not call both tools; take a larger model.")
if ":30" not in response:
    raise SystemExit("The model did not find the last ferry; take a larger model.")
