"""Run an agent with an MCP server of LM Studio in LlamaIndex.

LM Studio runs the MCP servers of its `mcp.json`. `LMStudioToolSpec` has their tools
for LlamaIndex: here, an agent finds a file, and reads it. The model must be trained
for tool use.

The recipe expects the server `files` in `mcp.json`: the command `npx` with the
arguments `-y`, `@modelcontextprotocol/server-filesystem`, and the folder for
temporary files, which `python -c "import tempfile; print(tempfile.gettempdir())"`
prints. LM Studio must run on this machine, whose files its tools see. On the
emulator, the functions of `servers/files_emulator.py` take the place of that
server.
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
import tempfile
from pathlib import Path

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

import lmstudio_integrations as lms
from lmstudio_integrations.llama_index import LMStudio, LMStudioToolSpec

PLUGIN = "mcp/files"
READING = ("search_files", "read_text_file")  # the server has others, which write


async def main(folder: str) -> None:
    """Let the agent find and read a file."""
    async with LMStudioToolSpec(plugin=PLUGIN) as tool_spec:
        try:
            found = await tool_spec.to_tool_list_async()
        except lms.LMStudioPluginError as error:
            sentence = f"This recipe needs {PLUGIN}: {error.title}."
            raise SystemExit(sentence) from None
        tools = [tool for tool in found if tool.metadata.name in READING]
        if len(tools) < len(READING):
            raise SystemExit(f"This recipe needs the tools {READING} of {PLUGIN}.")
        agent = FunctionAgent(
            tools=[*tools],
            llm=await LMStudio(temperature=0).aload(),
            system_prompt="The user names a folder. Search it for the file "
            "*ferry*, read it, and say in one sentence when the last ferry leaves.",
        )
        handler = agent.run(user_msg=folder)
        async for event in handler.stream_events():
            if isinstance(event, ToolCallResult):
                content = event.tool_output.content.replace(folder, "FOLDER")
                print(f"Tool {event.tool_name}: {content}")
        response = str(await handler)

    print("Response:", response)
    if "18:30" not in response:
        raise SystemExit(
            "The model did not find the last ferry; take a larger model."
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        notes = Path(temporary).resolve()
        Path(notes, "ferry.txt").write_text("Every hour, the last one at 18:30.")
        Path(notes, "pool.txt").write_text("The pool opens at seven.")
        asyncio.run(main(str(notes)))
