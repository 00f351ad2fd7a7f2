"""An MCP server with one tool, for `langchain_mcp.py`; it speaks over stdio."""

from mcp.server.fastmcp import FastMCP

LAST_FERRIES = {"island": "18:30", "lighthouse": "16:00"}

# stdout belongs to the protocol; logs go to stderr, which is the user's terminal.
server = FastMCP("town", log_level="ERROR")


@server.tool()
def last_ferry(destination: str) -> str:
    """Return when the last ferry to a destination leaves."""
    if destination not in LAST_FERRIES:
        known = ", ".join(LAST_FERRIES)
        raise ValueError(f"There is no ferry to {destination}, only to: {known}.")
    return LAST_FERRIES[destination]


if __name__ == "__main__":
    server.run(transport="stdio")
