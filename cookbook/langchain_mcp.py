"""Run an agent with MCP tools in LangChain.

`langchain-mcp-adapters` starts a local MCP server as a process and makes its tools
tools of LangChain. The server is the file `servers/mcp_server.py`; any other one
that speaks over stdio works in the same way, such as one that is started with `npx`
or `uvx`. If a tool raises an error, the model reads its text. The model must be
trained for tool use.
"""

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
import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import StdioConnection
from langchain_mcp_adapters.tools import load_mcp_tools

from lmstudio_integrations.langchain import ChatLMStudio

SERVER = StdioConnection(
    transport="stdio", command=sys.executable, args=["servers/mcp_server.py"]
)


async def run(agent: Any, question: str) -> set[str]:
    """Print the steps of the agent; return how its tool calls ended."""
    print(f"Question: {question}")
    state = await agent.ainvoke({"messages": [("user", question)]})
    for message in state["messages"]:
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                print(f"Tool call: {call['name']}({call['args']})")
            if message.text:
                print(f"Response: {message.text}")
        elif isinstance(message, ToolMessage):
            print(f"Tool result, {message.status}: {message.text}")
    return {each.status for each in state["messages"] if each.type == "tool"}


async def main() -> None:
    """Ask for a ferry, and then for one that does not exist."""
    model = ChatLMStudio(temperature=0)
    # Without a session of its own, each tool call would start the server again.
    async with MultiServerMCPClient({"town": SERVER}).session("town") as session:
        tools = await load_mcp_tools(session)
        agent = create_agent(
            model, tools, system_prompt="Look up ferries. Answer in one sentence."
        )
        found = await run(agent, "When does the last ferry to the island leave?")
        missing = await run(agent, "When does the last ferry to Greenland leave?")
    if "success" not in found or "error" not in missing:
        raise SystemExit("The model did not look up ferries; take a larger model.")


if __name__ == "__main__":
    asyncio.run(main())
