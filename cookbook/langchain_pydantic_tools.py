# %% [markdown]
# # Describe the arguments of a tool with pydantic in LangChain
#
# A pydantic class says what a tool accepts, and the model reads its schema. If its
# arguments are not valid, the tool does not run, and the agent sends the model the
# error. The model must be trained for tool use.

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
from enum import Enum
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_core.tools import tool
from pydantic import BaseModel, Field, field_validator

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The arguments
#
# `Field` describes and limits an argument. An `Enum` or a `Literal` is a choice. A
# validator is a rule that is not in the schema; its message tells the model what to
# do.


# %%
class Destination(Enum):
    """Where the ferry goes."""

    ISLAND = "island"
    LIGHTHOUSE = "lighthouse"


class Passengers(BaseModel):
    """Who travels."""

    adults: int = Field(ge=1, le=9)
    children: int = Field(default=0, ge=0, le=9, description="Younger than 16")


class Booking(BaseModel):
    """The arguments of `book`."""

    destination: Destination
    ticket: Literal["single", "return"]
    passengers: Passengers
    phone: str = Field(description="Number to call if the ferry is late")

    @field_validator("phone")
    @classmethod
    def is_international(cls, phone: str) -> str:
        """Require a country code."""
        if not phone.startswith("+"):
            raise ValueError("Begin with the country code, such as +47 for Norway.")
        return phone.replace(" ", "")


# %% [markdown]
# ## The tool
#
# The function gets what the class made of the arguments, such as a member of the
# `Enum`.

# %%
booked: list[dict[str, Any]] = []


@tool(args_schema=Booking)
def book(**booking: Any) -> str:
    """Book tickets for the ferry."""
    booked.append(booking)
    return f"Booked to the {booking['destination'].value}, from pier 7."


# %% [markdown]
# ## The agent
#
# A model that forgets the country code reads the error, and calls the tool again.

# %%
agent = create_agent(
    ChatLMStudio(temperature=0),
    tools=[book],
    system_prompt="You book ferries. Answer in one sentence.",
)
text = (
    "Book return tickets to the island for two adults and a child. "
    "My number in Norway is 22 33 44 55."
)
question: Any = {"messages": [("user", text)]}
messages = agent.invoke(question)["messages"]

for message in messages:
    for call in getattr(message, "tool_calls", []):
        print("Tool call:", call["args"])
    if message.type == "tool":
        print(f"Tool result ({message.status}):", message.text)
print("Response:", messages[-1].text)

# %%
if booked != [
    {
        "destination": Destination.ISLAND,
        "ticket": "return",
        "passengers": Passengers(adults=2, children=1),
        "phone": "+4722334455",
    }
]:
    raise SystemExit("The model did not book what was asked; take a larger model.")

# %% [markdown]
# In LlamaIndex, `FunctionTool.from_defaults(function, fn_schema=Booking)` shows the
# model the schema, but validates nothing: begin the function with
# `Booking.model_validate(arguments)`.
