"""An agent of mcp-use calls the tools of an MCP server, and streams its steps."""

import sys
from pathlib import Path

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "mcp-use",
    group="agents",
    job="an agent calls the tools of an MCP server",
    environment={"MCP_USE_ANONYMIZED_TELEMETRY": "false"},
)

MATH = '''
from mcp.server.fastmcp import FastMCP

mcp = FastMCP("Math")


@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


mcp.run(transport="stdio")
'''


async def test_an_agent_calls_a_tool_of_an_mcp_server(serve: Serve, tmp_path: Path) -> None:
    from mcp_use import MCPAgent, MCPClient
    from pydantic import BaseModel

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"structured": True}, "then": '{"total": 8}'},
        {"when": {"role": "user"}, "then": [{"tool": "add", "arguments": {"a": 3, "b": 5}}]},
        {"when": {"role": "tool"}, "then": "It is {last}."},
    )
    (tmp_path / "math_server.py").write_text(MATH)
    client = MCPClient.from_dict(
        {"mcpServers": {"math": {"command": sys.executable, "args": [str(tmp_path / "math_server.py")]}}}
    )
    agent = MCPAgent(llm=ChatLMStudio(model=CHAT), client=client, max_steps=30)
    assert await agent.run("What is 3 + 5?") == "It is 8."
    action, answer = [each async for each in agent.stream("What is 3 + 5?")]
    assert (action[0].tool, action[0].tool_input, action[1], answer) == ("add", {"a": 3, "b": 5}, "8", "It is 8.")

    class Sum(BaseModel):
        total: int

    assert await agent.run("What is 3 + 5?", output_schema=Sum) == Sum(total=8)
    await agent.close()
    *asked, last = server.predictions
    assert [[each["function"]["name"] for each in one.tools] for one in asked] == [["add"]] * 6
    assert (last.tools, [each["role"] for each in last.messages]) == ([], ["user"])
    assert last.config["structured"]["jsonSchema"]["required"] == ["total"]
