# %% [markdown]
# # Run an agent with tools in LangChain
#
# `create_agent` runs the tools that the model calls, until there is a final
# response. The model must be trained for tool use.

# %%
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage

from lmstudio_integrations.langchain import ChatLMStudio

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
    ChatLMStudio(model="qwen/qwen3-4b", temperature=0),
    tools=[departure, weather],
    system_prompt="Look up departures and the weather. Answer in one sentence.",
)

# %% [markdown]
# The stream has the messages of the tools, and those of the model token by token.
# The text after the last tool is the final response.

# %%
question = HumanMessage(
    "When does the last ferry to the island leave? Do I need an umbrella?"
)
response = ""
for token, _ in agent.stream({"messages": [question]}, stream_mode="messages"):
    if isinstance(token, ToolMessage):
        print(f"Tool {token.name}: {token.text}")
        response = ""
    elif isinstance(token, AIMessageChunk):
        response += token.text
print("Response:", response)
