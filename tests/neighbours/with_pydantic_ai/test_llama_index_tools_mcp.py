"""An agent calls a tool of an MCP server, which is a program of its own."""

import sys
from pathlib import Path

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-tools-mcp",
    group="llama-index",
    job="an agent calls a tool of an MCP server",
    weekly=True,
)

SERVER = '''
from mcp.server import MCPServer

server = MCPServer("ferries")


@server.tool()
def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Ferries to the {destination} leave from pier 7."


server.run("stdio")
'''


async def test_an_agent_calls_a_tool_of_a_server(serve: Serve, tmp_path: Path) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

    from lmstudio_integrations.llama_index import LMStudio

    server = serve(
        {"when": {"role": "tool"}, "then": "From pier 7."},
        {"then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    )
    program = tmp_path / "ferries.py"
    program.write_text(SERVER, encoding="utf-8")
    tools = await McpToolSpec(client=BasicMCPClient(sys.executable, args=[str(program)])).to_tool_list_async()
    agent = FunctionAgent(tools=list(tools), llm=LMStudio(model=CHAT).load())
    assert str(await agent.run("From which pier?")) == "From pier 7."
    asked, told = server.predictions
    (offered,) = asked.tools
    assert offered["function"]["name"] == "pier"
    assert offered["function"]["description"] == "Return the pier of the ferries to a destination."
    assert offered["function"]["parameters"]["required"] == ["destination"]
    assert "Ferries to the island leave from pier 7." in str(told.messages[-1])
