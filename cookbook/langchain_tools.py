# %% [markdown]
# # Call tools in LangChain without an agent
#
# Offer a tool, run the calls that the model makes, and send the results back. An
# agent does the same for you; here, your program decides about each call. The model
# must be trained for tool use.

# %%
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# LangChain makes a tool of a function. Its name, docstring and types tell the model
# when and how to call it.


# %%
@tool
def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Ferries to the {destination} leave from pier 7."


model = ChatLMStudio(model="qwen/qwen3-4b", temperature=0).bind_tools([pier])

messages: list[BaseMessage] = [
    HumanMessage("From which pier does the ferry to the island leave?")
]
request = model.invoke(messages)
for call in request.tool_calls:
    print(f"Tool call: {call['name']}({call['args']})")

# %% [markdown]
# `invoke` of a tool takes the whole call, and returns the message with its result.

# %%
results = [pier.invoke(call) for call in request.tool_calls]
response = model.invoke([*messages, request, *results])
print("Response:", response.text)
