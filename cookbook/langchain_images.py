# %% [markdown]
# # Send an image in LangChain
#
# An image is a content block of a message. The adapter uploads it to LM Studio,
# which may run on another machine. The model must accept images.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    info = lms.llm().get_info()
except lms.LMStudioError as error:
    raise SystemExit(error) from None
print("Model:", info.model_key)
if not info.vision:
    able = [m for m in lms.list_downloaded_models("llm") if m.vision]
    names = ", ".join(m.model_key for m in able) or "none"
    raise SystemExit(f"This recipe needs vision; your models with it: {names}.")

# %%
import base64
from pathlib import Path

from langchain_core.messages import HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

model = ChatLMStudio(temperature=0)

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
if "red" not in response.text.lower():
    raise SystemExit("The model did not see the color; take a larger model.")
