"""Structured extraction: read an instance of a pydantic model from a text.

The server's grammar constrains the output to the schema, so this works with every
model, without tools.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
to use another model.
"""

import os
from typing import Literal

from pydantic import BaseModel, Field

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")

REVIEW = "The pool in Park Road is clean and warm. Four euros for adults is fair."
PROMPT = (
    f"Extract the place, the price and the verdict from this review.\n\n{REVIEW}"
)


class Review(BaseModel):
    """A visitor's review of a place."""

    place: str = Field(max_length=40)
    euros: int | None = Field(ge=0, le=1000)
    verdict: Literal["good", "mixed", "bad"]


def main() -> None:
    """Extract a review: as an instance, then together with the raw message."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=200)

    review = model.with_structured_output(Review).invoke(PROMPT)
    print(review)
    assert isinstance(review, Review)

    result = model.with_structured_output(Review, include_raw=True).invoke(PROMPT)
    print(result["raw"].usage_metadata["output_tokens"], "tokens")
    assert result["parsed"] == Review.model_validate_json(result["raw"].text)
    assert result["parsing_error"] is None


if __name__ == "__main__":
    main()
