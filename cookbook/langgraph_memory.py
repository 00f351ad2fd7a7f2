# %% [markdown]
# # Remember conversations and approve tool calls in LangGraph
#
# A checkpointer remembers each conversation by its thread ID. Before a ferry is
# booked, the graph stops with `interrupt` until a human has decided. The model must
# be trained for tool use.

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

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Interrupt, interrupt

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The tool
#
# When the graph is resumed, the tool runs again from its first line, and
# `interrupt` returns the decision. So everything that needs approval comes after
# it.

# %%
booked: list[str] = []


@tool
def book(destination: str, passengers: int) -> str:
    """Book the next ferry to a destination."""
    request = f"{passengers} passengers to {destination}"
    if not interrupt(f"Book {request}?"):
        return "The user declined. Nothing is booked."
    booked.append(request)
    return f"Booked: {request}, pier 7, 18:30."


# %% [markdown]
# ## The graph
#
# `InMemorySaver` forgets when the process ends; others write to a database.

# %%
SYSTEM = SystemMessage("You book ferries. Answer in one sentence.")
model = ChatLMStudio(temperature=0).bind_tools([book])


def respond(state: MessagesState) -> dict[str, Any]:
    """Add the model's response to the conversation."""
    return {"messages": [model.invoke([SYSTEM, *state["messages"]])]}


builder = StateGraph(MessagesState)
builder.add_node("respond", respond)
builder.add_node("tools", ToolNode([book]))
builder.add_edge(START, "respond")
builder.add_conditional_edges("respond", tools_condition)
builder.add_edge("tools", "respond")
graph = builder.compile(checkpointer=InMemorySaver())

# %% [markdown]
# ## One turn


# %%
def run(graph_input: Any, thread: str) -> tuple[Interrupt, ...]:
    """Print what the model writes; return what the graph waits for."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    stream: Any = graph.stream(graph_input, config, stream_mode="messages")
    for chunk, _ in stream:
        if chunk.type == "AIMessageChunk":
            print(chunk.text, end="", flush=True)
    print()
    return graph.get_state(config).interrupts


def send(text: str, thread: str) -> tuple[Interrupt, ...]:
    """Send a message of the user."""
    print(f"User {thread}: {text}")
    return run({"messages": [HumanMessage(text)]}, thread)


# %% [markdown]
# ## Memory
#
# Anna's second prompt contains her first turn; Ben's thread knows nothing of it.

# %%
for text in ("I am Anna. I travel with two children.", "What is my name?"):
    send(text, "anna")
assert not send("Do you know my name?", "ben")

# %% [markdown]
# ## Approve

# %%
waiting = send("Book the ferry to the island for all of us.", "anna")
print("Asked:", [each.value for each in waiting])
if not waiting:
    raise SystemExit("The model did not call the tool; take a larger model.")

run(Command(resume=True), "anna")
print("Booked:", booked)
assert booked

# %% [markdown]
# ## Decline

# %%
if not send("Book the ferry to the lighthouse for two.", "ben"):
    raise SystemExit("The model did not call the tool; take a larger model.")
run(Command(resume=False), "ben")
assert len(booked) == 1
