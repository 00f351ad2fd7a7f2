# %% [markdown]
# # Extract structured data in LlamaIndex
#
# Read an instance of a pydantic model from a text. The server's grammar allows the
# model nothing but the schema, so this works with every model, without tools.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, Field

from lmstudio_integrations.llama_index import LMStudio


# %%
class Offer(BaseModel):
    """A price for a place."""

    place: str = Field(max_length=40)
    euros: int = Field(ge=0, le=1000)


# %% [markdown]
# The grammar constrains the form of the response, but does not explain the fields
# to the model: name them in the prompt.

# %%
TEXT = "The swimming pool in Park Road costs four euros for adults."
PROMPT = PromptTemplate("Extract the place and the price from this text.\n\n{text}")

llm = LMStudio(temperature=0)
offer = llm.structured_predict(Offer, PROMPT, text=TEXT)
print("Offer:", offer)
assert isinstance(offer, Offer)

# %% [markdown]
# A stream yields the object as it grows. The last one is complete and validated.

# %%
partial = list(llm.stream_structured_predict(Offer, PROMPT, text=TEXT))
print("First object of the stream:", partial[0])
print("Last object of the stream:", partial[-1])
assert isinstance(partial[-1], Offer)
