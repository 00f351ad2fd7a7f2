# %% [markdown]
# # Send an image in LangChain
#
# Ask a model with vision about an image. The image is a content block of a message;
# the adapter uploads it to LM Studio, which may run on another machine.

# %%
import base64
from pathlib import Path

from langchain_core.messages import HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(model="google/gemma-3-4b", temperature=0)

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
print("Response:", response.text)
