"""An MCP server that is written with the package `mcp`, version 1 or 2. Tests start it, or serve `server` over HTTP."""

import asyncio
import importlib
from typing import Any

try:
    library: Any = importlib.import_module("mcp.server.mcpserver")
    server = library.MCPServer("package")
except ImportError:
    library = importlib.import_module("mcp.server.fastmcp")
    server = library.FastMCP("package")


ended = asyncio.Event()


async def add(a: int, b: int, context: Any) -> int:
    """Add two numbers."""
    await context.report_progress(1, 2, f"adding {a} and {b}")
    return a + b


async def hold(context: Any) -> None:
    """Wait until the call is cancelled."""
    await context.report_progress(1, 2, "holding")
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


async def wait_for_hold() -> str:
    """Wait until a call of `hold` has ended."""
    await ended.wait()
    return "ended"


add.__annotations__["context"] = hold.__annotations__["context"] = library.Context
tools: list[Any] = [add, hold, wait_for_hold]
for tool in tools:
    server.tool()(tool)

if __name__ == "__main__":
    server.run(transport="stdio")
