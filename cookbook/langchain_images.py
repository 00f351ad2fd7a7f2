# %% [markdown]
# # Send an image in LangChain
#
# An image is a content block of a message. The adapter uploads it to LM Studio,
# which may run on another machine.

# %%
import base64
from pathlib import Path

from langchain_core.messages import HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)
if not model.load().profile.get("image_inputs"):
    raise SystemExit(
        "This recipe needs a model with vision; "
        "load one in LM Studio, for example google/gemma-3-4b."
    )

# %% [markdown]
# The file is a red square.

# %%
image = base64.b64encode(Path("data/square.png").read_bytes()).decode()
question = HumanMessage(
    [
        {"type": "text", "text": "What color is this square? Answer in one word."},
        {"type": "image", "base64": image, "mime_type": "image/png"},
    ]
)
response = model.invoke([question])
print(response.text)
assert "red" in response.text.lower()
