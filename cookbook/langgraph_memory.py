# %% [markdown]
# # Remember conversations and approve tool calls in LangGraph
#
# A graph of two nodes: the model, and its tools. A checkpointer remembers each
# conversation by its thread ID. Before a ferry is booked, the graph stops with
# `interrupt` and goes on when a human has decided.

# %%
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Interrupt, interrupt

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
model = ChatLMStudio(temperature=0)

# %% [markdown]
# ## The tool
#
# `interrupt` ends the run of the graph, and its value is passed to the caller. When
# the graph is resumed, the tool runs again from its first line, and `interrupt`
# returns the decision. So everything that must not happen twice, or not without
# approval, comes after it.

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
# `tools_condition` goes to the tools if the model calls one, and otherwise ends the
# turn. `InMemorySaver` forgets when the process ends; other checkpointers write to
# a database.

# %%
SYSTEM = SystemMessage("You book ferries. Answer in one sentence.")


def respond(state: MessagesState) -> dict[str, Any]:
    """Add the model's response to the conversation."""
    return {"messages": [model_with_tools.invoke([SYSTEM, *state["messages"]])]}


model_with_tools = model.bind_tools([book])
builder = StateGraph(MessagesState)
builder.add_node("respond", respond)
builder.add_node("tools", ToolNode([book]))
builder.add_edge(START, "respond")
builder.add_conditional_edges("respond", tools_condition)
builder.add_edge("tools", "respond")
graph = builder.compile(checkpointer=InMemorySaver())

# %% [markdown]
# ## One turn
#
# `stream_mode="messages"` yields what the model writes as it is generated, although
# `respond` calls `invoke`. Afterwards, the state says whether the graph waits for a
# decision.


# %%
def config(thread: str) -> RunnableConfig:
    """Return the config that selects a conversation."""
    return {"configurable": {"thread_id": thread}}


def run(graph_input: Any, thread: str) -> tuple[Interrupt, ...]:
    """Run the graph and print what the model writes; return what it waits for."""
    print("Response:", end=" ")
    stream: Any = graph.stream(graph_input, config(thread), stream_mode="messages")
    for chunk, _ in stream:
        if chunk.type == "AIMessageChunk":
            print(chunk.text, end="", flush=True)
    waiting = graph.get_state(config(thread)).interrupts
    print("(waits for a decision)" if waiting else "")
    return waiting


def send(text: str, thread: str) -> tuple[Interrupt, ...]:
    """Send a message of the user."""
    print(f"User {thread}: {text}")
    return run({"messages": [HumanMessage(text)]}, thread)


# %% [markdown]
# ## Memory
#
# The second prompt of Anna's thread contains her first turn. Another thread is
# another conversation, and knows nothing of hers.

# %%
send("I am Anna. I travel with two children.", "anna")
send("What is my name?", "anna")
send("Do you know my name?", "ben")

for thread in ("anna", "ben"):
    messages = graph.get_state(config(thread)).values["messages"]
    tokens = messages[-1].usage_metadata["input_tokens"]
    print(
        f"Thread {thread}: {len(messages)} messages, {tokens} tokens in the prompt"
    )

# %% [markdown]
# ## Approve
#
# The model calls the tool, and the graph stops. The checkpoint has everything, so
# the decision can come minutes or days later, with a checkpointer on disk even from
# another process. The response of the model is part of it and is not generated
# again.

# %%
waiting = send("Book the ferry to the island for all of us.", "anna")
print("Asked:", [each.value for each in waiting])
if not waiting:
    raise SystemExit("The model did not call the tool; take a larger model.")
assert not booked

# %%
run(Command(resume=True), "anna")
print("Booked:", booked)
assert booked

# %% [markdown]
# ## Decline
#
# The model reads this as the result of its call, and can suggest something else.

# %%
waiting = send("Book the ferry to the lighthouse for two.", "ben")
print("Asked:", [each.value for each in waiting])
if not waiting:
    raise SystemExit("The model did not call the tool; take a larger model.")
run(Command(resume=False), "ben")
assert len(booked) == 1
