# %% [markdown]
# # Let a person check unsure fields in LangChain
#
# A structured response is always valid, also where the model had no idea. Its
# confidence says of each field how probable its value was. So store what the model
# is sure of, and let a person read the rest.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from typing import Literal

from pydantic import BaseModel

from lmstudio_integrations.langchain import ChatLMStudio

# %%
Sentiment = Literal["positive", "negative"]


class Review(BaseModel):
    """A customer's review."""

    sentiment: Sentiment


REVIEWS = [
    "Wonderful! I love it and use it every day.",
    "It is fine, nothing special.",
    "It stopped after a day.",
    "Good picture, terrible sound.",
]

# %% [markdown]
# The probabilities are those of the model, not of the grammar. A model that would
# rather write a sentence is unsure of every value, so show it examples as JSON.

# %%
EXAMPLES: dict[str, Sentiment] = {
    "I really like it.": "positive",
    "It is broken and useless.": "negative",
    "Very happy with it.": "positive",
    "A bad product, do not buy.": "negative",
}
shots = [
    message
    for text, sentiment in EXAMPLES.items()
    for message in (
        ("user", f"Review: {text}"),
        ("assistant", Review(sentiment=sentiment).model_dump_json()),
    )
]

model = ChatLMStudio(temperature=0, repeat_penalty=False)
extract = model.with_structured_output(
    Review, include_raw=True, include_confidence=True
)
results = extract.batch([[*shots, ("user", f"Review: {text}")] for text in REVIEWS])

# %% [markdown]
# A field goes to a person if its value was not probable enough; the alternative is
# a proposal. Choose the limit with labeled data of your own.

# %%
SURE = 0.7

for review, result in zip(REVIEWS, results, strict=True):
    if result["parsing_error"] is not None:
        raise SystemExit(f"Take a larger model: {result['parsing_error']}")
    confidence = result["confidence"] or {}
    print(review, result["raw"].text)
    unsure = {
        path: field
        for path, field in confidence.items()
        if field.probability < SURE
    }
    for path, field in unsure.items():
        value = f"{path} ({field.probability:.0%})"
        other = f"{field.alternative} ({field.alternative_probability or 0:.0%})"
        print(f"  A person checks {value}; the model also thought of {other}.")
    if not unsure:
        print("  Stored.")
