"""An agent calls the tools of an MCP server."""

import sys
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-mcp-adapters", group="agents", job="an agent calls the tools of an MCP server"
)

MATH = '''
from mcp.server.fastmcp import FastMCP

mcp = FastMCP("Math")


@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@mcp.tool()
def multiply(a: int, b: int) -> int:
    """Multiply two numbers"""
    return a * b


mcp.run(transport="stdio")
'''


async def test_an_agent_calls_tools_of_an_mcp_server(serve: Serve, tmp_path: Path) -> None:
    from langchain.agents import create_agent
    from langchain_mcp_adapters.client import MultiServerMCPClient

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"role": "user"}, "then": [{"tool": "add", "arguments": {"a": 3, "b": 5}}]},
        {"when": {"last": "8"}, "then": [{"tool": "multiply", "arguments": {"a": 8, "b": 12}}]},
        {"when": {"last": "96"}, "then": "It is {last}."},
    )
    (tmp_path / "math_server.py").write_text(MATH)
    client = MultiServerMCPClient(
        {"math": {"command": sys.executable, "args": [str(tmp_path / "math_server.py")], "transport": "stdio"}}
    )
    agent = create_agent(ChatLMStudio(model=CHAT), await client.get_tools())
    question: Any = {"messages": "What is (3 + 5) x 12?"}
    messages = (await agent.ainvoke(question))["messages"]
    assert [each.text for each in messages[1:]] == ["", "8", "", "96", "It is 96."]
    numbers = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    assert [each["function"] for each in server.predictions[0].tools] == [
        {"name": name, "description": f"{name.title()} two numbers", "parameters": numbers | {"required": ["a", "b"]}}
        for name in ("add", "multiply")
    ]
    assert [each["role"] for each in server.predictions[-1].messages] == ["user", *["assistant", "tool"] * 2]
