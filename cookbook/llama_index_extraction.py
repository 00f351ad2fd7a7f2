"""Structured extraction: a text becomes an instance of a pydantic class, whole or as it grows.

The server's grammar lets the model write nothing else, so this works with every model, without tools.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os

from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, Field

from lmstudio_integrations.llama_index import LMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")

TEXT = "The swimming pool in Park Road costs four euros for adults."
PROMPT = PromptTemplate("Extract the place and the price from this text.\n\n{text}")


class Offer(BaseModel):
    """Something that one can pay for."""

    place: str = Field(max_length=40)
    euros: int = Field(ge=0, le=1000)


def main() -> None:
    """Extract an offer."""
    llm = LMStudio(model=MODEL, temperature=0, max_tokens=200)

    offer = llm.structured_predict(Offer, PROMPT, text=TEXT)
    print(offer)
    assert isinstance(offer, Offer)

    growing = list(llm.stream_structured_predict(Offer, PROMPT, text=TEXT))
    print(f"in {len(growing)} steps: {growing[-1]}")
    assert isinstance(growing[-1], Offer)


if __name__ == "__main__":
    main()
