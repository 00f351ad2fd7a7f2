# %% [markdown]
# # Run an agent with an MCP server of LM Studio in LangChain
#
# LM Studio runs the MCP servers of its `mcp.json`. `LMStudioToolkit` has their
# tools for LangChain: here, an agent of LangGraph finds a file, and reads it.
#
# The recipe expects the server `files` in `mcp.json`: the command `npx` with the
# arguments `-y`, `@modelcontextprotocol/server-filesystem`, and the folder for
# temporary files, which `python -c "import tempfile; print(tempfile.gettempdir())"`
# prints. LM Studio must run on this machine, whose files its tools see. On the
# emulator, the functions of `servers/files_emulator.py` take the place of that
# server. The model must be trained for tool use.

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
import tempfile
from pathlib import Path
from typing import Any

from langchain.agents import create_agent

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioToolkit

# %% [markdown]
# The server has more tools, and some of them write. The agent gets two that read.

# %%
PLUGIN = "mcp/files"
READING = ("search_files", "read_text_file")

toolkit = LMStudioToolkit(plugin=PLUGIN)
try:
    tools = [tool for tool in toolkit.get_tools() if tool.name in READING]
except lms.LMStudioPluginError as error:
    raise SystemExit(f"This recipe needs {PLUGIN}: {error.title}.") from None
if len(tools) < len(READING):
    raise SystemExit(f"This recipe needs the tools {READING} of {PLUGIN}.")
print("Tools:", ", ".join(tool.name for tool in tools))

agent = create_agent(
    ChatLMStudio(temperature=0),
    tools,
    system_prompt="The user names a folder. Search it for the file *ferry*, read "
    "it, and say in one sentence when the last ferry leaves.",
)

# %%
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name).resolve()
Path(folder, "ferry.txt").write_text("Every hour, the last one at 18:30.", "utf-8")
Path(folder, "pool.txt").write_text("The pool opens at seven.", "utf-8")

question: Any = {"messages": [("user", str(folder))]}
steps: Any = agent.stream(question, stream_mode="messages")

called: set[str] = set()
response = ""
for token, _ in steps:
    if token.type == "tool":
        print(f"Tool {token.name}: {token.text.replace(str(folder), 'FOLDER')}")
        called.add(token.name)
        response = ""
    else:
        response += token.text
print("Response:", response)
temporary.cleanup()

# %% [markdown]
# `close` ends the session, and LM Studio need not keep the server any longer.

# %%
toolkit.close()
if "read_text_file" not in called or "18:30" not in response:
    raise SystemExit("The model did not find the last ferry; take a larger model.")
