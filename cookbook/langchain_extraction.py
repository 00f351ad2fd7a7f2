# %% [markdown]
# # Get structured output in LangChain
#
# Read an instance of a pydantic model from a text. The server's grammar allows the
# model nothing but the schema, so this works with every model, without tools.

# %%
from typing import Literal

from pydantic import BaseModel, Field

from lmstudio_integrations.langchain import ChatLMStudio


# %%
class Review(BaseModel):
    """A visitor's review of a place."""

    place: str = Field(max_length=40)
    euros: int | None = Field(ge=0, le=1000)
    verdict: Literal["good", "mixed", "bad"]


# %% [markdown]
# The grammar constrains the form of the response, but does not explain the fields
# to the model: name them in the prompt. The bounds in the schema keep small models
# from endless texts and numbers.

# %%
REVIEW = "The pool in Park Road is clean and warm. Four euros for adults is fair."
PROMPT = (
    f"Extract the place, the price and the verdict from this review.\n\n{REVIEW}"
)

model = ChatLMStudio(model="smollm2-135m-instruct", temperature=0)
review = model.with_structured_output(Review).invoke(PROMPT)
print("Review:", review)

# %% [markdown]
# With `include_raw=True` there is also the message, with token counts and the
# reasoning of a thinking model, and an error instead of an exception.

# %%
result = model.with_structured_output(Review, include_raw=True).invoke(PROMPT)
print("Tokens of the response:", result["raw"].usage_metadata["output_tokens"])
print("Error:", result["parsing_error"])
