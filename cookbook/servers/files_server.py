"""An MCP server that finds and reads files, for recipes with tools of LM Studio.

It has two tools of `@modelcontextprotocol/server-filesystem`, and allows the folder
for temporary files. `mcp_catalog.toml` names it; it speaks over stdio.
"""

import tempfile
from fnmatch import fnmatch
from pathlib import Path

from mcp.server.fastmcp import FastMCP

ALLOWED = Path(tempfile.gettempdir()).resolve()

# stdout belongs to the protocol; logs go to stderr, which the emulator reads.
server = FastMCP("files", log_level="ERROR")


def allowed(path: str) -> Path:
    """Return a path that is in the allowed folder."""
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(ALLOWED):
        raise ValueError(f"{path} is not in {ALLOWED}.")
    return resolved


@server.tool()
def search_files(path: str, pattern: str) -> str:
    """Return the paths of the files in a folder whose names match a pattern."""
    files = allowed(path).rglob("*")
    found = sorted(str(each) for each in files if fnmatch(each.name, pattern))
    return "\n".join(found) or "No matches found"


@server.tool()
def read_text_file(path: str) -> str:
    """Return the text of a file."""
    return allowed(path).read_text("utf-8")


if __name__ == "__main__":
    server.run(transport="stdio")
