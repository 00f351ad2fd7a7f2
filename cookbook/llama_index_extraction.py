"""Structured extraction: read an instance of a pydantic model from a text.

The server's grammar constrains the output to the schema, so this works with every
model, without tools.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os

from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, Field

from lmstudio_integrations.llama_index import LMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")

TEXT = "The swimming pool in Park Road costs four euros for adults."
PROMPT = PromptTemplate("Extract the place and the price from this text.\n\n{text}")


class Offer(BaseModel):
    """A price for a place."""

    place: str = Field(max_length=40)
    euros: int = Field(ge=0, le=1000)


def main() -> None:
    """Extract an offer."""
    llm = LMStudio(model=MODEL, temperature=0, max_tokens=200)

    offer = llm.structured_predict(Offer, PROMPT, text=TEXT)
    print(offer)
    assert isinstance(offer, Offer)

    partial = list(llm.stream_structured_predict(Offer, PROMPT, text=TEXT))
    print(f"in {len(partial)} steps: {partial[-1]}")
    assert isinstance(partial[-1], Offer)


if __name__ == "__main__":
    main()
