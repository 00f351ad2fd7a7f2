"""Run an agent with MCP tools in LangChain.

The agent calls the tools of an MCP server. `langchain-mcp-adapters` starts the
server as a process on this machine, and makes its tools tools of LangChain. The
server is the file `servers/mcp_server.py`; any other one that speaks over stdio
works in the same way, such as one that is started with `npx` or `uvx`. If a tool
raises an error, the model reads its text. The model must be trained for tool use.
"""

import asyncio
import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import StdioConnection
from langchain_mcp_adapters.tools import load_mcp_tools

from lmstudio_integrations.langchain import ChatLMStudio

SERVER = StdioConnection(
    transport="stdio", command=sys.executable, args=["servers/mcp_server.py"]
)
QUESTIONS = (
    "When does the last ferry to the island leave?",
    "When does the last ferry to Greenland leave?",
)


async def main() -> None:
    """Ask for a ferry, and then for one that does not exist; print the steps."""
    model = ChatLMStudio(model="qwen/qwen3-4b", temperature=0)
    # Without a session of its own, each tool call would start the server again.
    async with MultiServerMCPClient({"town": SERVER}).session("town") as session:
        tools = await load_mcp_tools(session)
        agent = create_agent(
            model, tools, system_prompt="Look up ferries. Answer in one sentence."
        )
        for question in QUESTIONS:
            print(f"Question: {question}")
            state = await agent.ainvoke({"messages": [HumanMessage(question)]})
            for message in state["messages"]:
                if isinstance(message, AIMessage):
                    for call in message.tool_calls:
                        print(f"Tool call: {call['name']}({call['args']})")
                    if message.text:
                        print(f"Response: {message.text}")
                elif isinstance(message, ToolMessage):
                    print(f"Tool result, {message.status}: {message.text}")


if __name__ == "__main__":
    asyncio.run(main())
