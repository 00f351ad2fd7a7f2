# %% [markdown]
# # Return images from tools in LangChain
#
# The result of a tool can contain an image, for example a screenshot, a plot or the
# view of a camera, and the model sees it. The model must be trained for tool use,
# and accept images.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    info = lms.llm().get_info()
except lms.LMStudioError as error:
    raise SystemExit(error) from None
print("Model:", info.model_key)
if not (info.trained_for_tool_use and info.vision):
    models = lms.list_downloaded_models("llm")
    able = [m for m in models if m.trained_for_tool_use and m.vision]
    names = ", ".join(m.model_key for m in able) or "none"
    raise SystemExit(
        f"This recipe needs tool use and vision; your models with both: {names}."
    )

# %%
import base64
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)

# %% [markdown]
# ## The tool
#
# It returns a list of content blocks, in the same form as in a message of the user.
# The camera is a file here, a red square.


# %%
@tool
def view_signal(place: str) -> list[dict[str, Any]]:
    """Return the current view of the camera at a harbor signal."""
    image = base64.b64encode(Path("data/square.png").read_bytes()).decode()
    return [
        {"type": "text", "text": f"The signal at the {place}, seen by its camera:"},
        {"type": "image", "base64": image, "mime_type": "image/png"},
    ]


# %% [markdown]
# ## The agent
#
# LM Studio accepts only text in tool results. So the adapter sends the text as the
# result, and the image in a user message behind it. Your messages stay as they are:
# the image remains part of the tool's result.

# %%
agent = create_agent(
    model, tools=[view_signal], system_prompt="Look at signals. Answer briefly."
)
question: Any = {"messages": [("user", "What color is the signal at the pier?")]}
messages = agent.invoke(question)["messages"]

results = [message for message in messages if isinstance(message, ToolMessage)]
for message in results:
    kinds = [block["type"] for block in message.content_blocks]
    print(f"Result of {message.name}: {' and '.join(kinds)}")
print("Response:", messages[-1].text)

if not results:
    raise SystemExit("The model did not call the tool; take a larger model.")
assert {"text", "image"} <= {block["type"] for block in results[0].content_blocks}
if "red" not in messages[-1].text.lower():
    raise SystemExit("The model did not see the color; take a larger model.")

# %% [markdown]
# ## Large images
#
# Every later turn of the conversation contains the image again. Scale images down
# to what the model needs to see, and drop those of old turns if the context window
# is small.
