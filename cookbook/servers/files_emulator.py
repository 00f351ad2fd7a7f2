"""The emulator with a plugin that finds and reads files.

Its functions take the place of two tools of the MCP server
`@modelcontextprotocol/server-filesystem`, and allow the folder for temporary files.
"""

import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from lmstudio_integrations.emulator import Emulator

ALLOWED = Path(tempfile.gettempdir()).resolve()
CATALOG = Path(__file__).parents[1] / "catalog.toml"


def allowed(path: str) -> Path:
    """Return a path that is in the allowed folder."""
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(ALLOWED):
        raise ValueError(f"{path} is not in {ALLOWED}.")
    return resolved


def search_files(path: str, pattern: str) -> str:
    """Return the paths of the files in a folder whose names match a pattern."""
    files = allowed(path).rglob("*")
    found = sorted(str(each) for each in files if fnmatch(each.name, pattern))
    return "\n".join(found) or "No matches found"


def read_text_file(path: str) -> str:
    """Return the text of a file."""
    return allowed(path).read_text("utf-8")


TOOLS: list[Callable[..., str]] = [search_files, read_text_file]
PLUGINS = {"mcp/files": TOOLS}

if __name__ == "__main__":
    server = Emulator(
        catalog=CATALOG,
        plugins=PLUGINS,
        load=["qwen/qwen3-4b-2507"],
        port=41343,  # where programs look for LM Studio
    )
    server.serve_forever(lambda: print("The emulator listens at", server.address))
