# %% [markdown]
# # Call tools in LangChain without an agent
#
# A tool loop by hand: offer a tool, run the calls that the model makes, and send
# the results back. An agent does the same for you; by hand, you decide about each
# call. The model must be trained for tool use.

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
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)

# %% [markdown]
# LangChain makes a tool of a function. Its name, docstring and types tell the model
# when and how to call it.


# %%
@tool
def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Ferries to the {destination} leave from pier 7."


messages: list[BaseMessage] = [
    HumanMessage("From which pier does the ferry to the island leave?")
]
request = model.bind_tools([pier]).invoke(messages)
for call in request.tool_calls:
    print(f"Tool call: {call['name']}({call['args']})")
if not request.tool_calls:
    raise SystemExit("The model did not call the tool; take a larger model.")

# %% [markdown]
# `invoke` of a tool takes the whole call, and returns the message with its result.

# %%
results = [pier.invoke(call) for call in request.tool_calls]
response = model.bind_tools([pier]).invoke([*messages, request, *results])
print("Response:", response.text)
if "7" not in response.text:
    raise SystemExit("The model did not name the pier; take a larger model.")
