# %% [markdown]
# # Remember conversations and approve tool calls in LangGraph
#
# A checkpointer remembers each conversation by its thread ID. Before a ferry is
# booked, the graph stops with `interrupt` until a human has decided (human in the
# loop). The model must be trained for tool use.

# %%
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

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
model = ChatLMStudio(model="qwen/qwen3-4b", temperature=0).bind_tools([book])


def respond(state: MessagesState) -> MessagesState:
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
def run(graph_input: MessagesState | Command[bool], thread: str) -> None:
    """Run the graph; print what it waits for, or the response."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    state = graph.invoke(graph_input, config)
    waiting = graph.get_state(config).interrupts
    for each in waiting:
        print("Asked:", each.value)
    if not waiting:
        print("Response:", state["messages"][-1].text)


def send(text: str, thread: str) -> None:
    """Send a message of the user."""
    print(f"User {thread}: {text}")
    run({"messages": [HumanMessage(text)]}, thread)


# %% [markdown]
# ## Memory
#
# Anna's second prompt contains her first turn; Ben's thread knows nothing of it.

# %%
send("I am Anna. I travel with two children.", "anna")
send("What is my name?", "anna")
send("Do you know my name?", "ben")

# %% [markdown]
# ## Approve
#
# `Command(resume=…)` is the decision of the human.

# %%
send("Book the ferry to the island for all of us.", "anna")
run(Command(resume=True), "anna")
print("Booked:", booked)

# %% [markdown]
# ## Decline

# %%
send("Book the ferry to the lighthouse for two.", "ben")
run(Command(resume=False), "ben")
print("Booked:", booked)
