"""Structured extraction: a text becomes an instance of a pydantic class.

The server's grammar lets the model write nothing else, so this works with every model, without tools.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os
from typing import Literal

from pydantic import BaseModel, Field

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")

REVIEW = "The pool in Park Road is clean and warm. Four euros for adults is a fair price. We shall come again."
PROMPT = f"Which place is this review about, how many euros do adults pay, and what is the verdict?\n\n{REVIEW}"


class Review(BaseModel):
    """What a visitor thinks."""

    place: str = Field(max_length=40)
    euros: int | None = Field(ge=0, le=1000)
    verdict: Literal["good", "mixed", "bad"]


def main() -> None:
    """Extract a review; once as an instance, once with the answer that it was read from."""
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=200)

    review = model.with_structured_output(Review).invoke(PROMPT)
    print(review)
    assert isinstance(review, Review)

    both = model.with_structured_output(Review, include_raw=True).invoke(PROMPT)
    print(both["raw"].text, both["raw"].usage_metadata)
    assert both["parsed"] == Review.model_validate_json(both["raw"].text)
    assert both["parsing_error"] is None


if __name__ == "__main__":
    main()
