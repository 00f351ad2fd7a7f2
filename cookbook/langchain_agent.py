# %% [markdown]
# # Run an agent with tools in LangChain
#
# `create_agent` runs the tools that the model calls, until there is a final
# response.

# %%
from typing import Any

from langchain.agents import create_agent

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)
if not model.load().profile.get("tool_calling"):
    raise SystemExit(
        "This recipe needs a model with tool use; "
        "load one in LM Studio, for example qwen/qwen3-4b."
    )

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
        print(f"[{token.name}: {token.text}]")
        called.add(token.name)
        response = ""
    else:
        response += token.text
print(response)
assert called == {"departure", "weather"}
assert ":30" in response
