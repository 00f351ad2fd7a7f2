# %% [markdown]
# # Ask a large model only for unsure fields in LangChain
#
# A small model is fast, and often right. Keep the fields that it is sure of, and
# ask a large model for the others: a cascade. Labeled examples say how sure is sure
# enough. Load two models: the smaller one begins.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    lms.llm()  # fails if no language model is loaded
    keys = {model.get_info().model_key for model in lms.list_loaded_models("llm")}
except lms.LMStudioError as error:
    raise SystemExit(error) from None
if len(keys) < 2:
    raise SystemExit(f"This recipe needs two language models; loaded: {min(keys)}.")

# %%
import csv
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, create_model

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

infos = [model.get_info() for model in lms.list_loaded_models("llm")]
infos.sort(key=lambda info: info.size_bytes)
small = ChatLMStudio(model=infos[0].identifier, temperature=0, repeat_penalty=False)
large = ChatLMStudio(model=infos[-1].identifier, temperature=0)
print(f"Small: {small.model}, large: {large.model}")

# %% [markdown]
# ## The small model
#
# It extracts all fields, with the probability of each. The examples in the prompt
# show it the form, so that it is not unsure of that.

# %%
Product = Literal["lamp", "kettle", "radio", "chair", "clock"]
Sentiment = Literal["positive", "negative"]


class Review(BaseModel):
    """A customer's review."""

    product: Product
    sentiment: Sentiment


FIELDS = list(Review.model_fields)

EXAMPLES: dict[str, tuple[Product, Sentiment]] = {
    "I really like this lamp.": ("lamp", "positive"),
    "The kettle is broken and useless.": ("kettle", "negative"),
    "Very happy with the radio.": ("radio", "positive"),
    "A bad chair, do not buy it.": ("chair", "negative"),
    "The clock is lovely.": ("clock", "positive"),
    "This lamp is a waste of money.": ("lamp", "negative"),
}
shots = [
    message
    for text, (product, sentiment) in EXAMPLES.items()
    for message in (
        ("user", f"Review: {text}"),
        (
            "assistant",
            Review(product=product, sentiment=sentiment).model_dump_json(),
        ),
    )
]


def with_examples(text: str) -> list[tuple[str, str]]:
    """Return the messages for the small model."""
    return [*shots, ("user", f"Review: {text}")]


extract = RunnableLambda(with_examples) | small.with_structured_output(
    Review, include_raw=True, include_confidence=True
)


def read(result: dict[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the values of a result, and how probable each of them was."""
    if result["parsing_error"] is not None:
        raise SystemExit(f"Take a larger model: {result['parsing_error']}")
    confidence = result["confidence"] or {}
    sure = {name: field.probability for name, field in confidence.items()}
    return result["parsed"].model_dump(), sure


# %% [markdown]
# ## How sure is sure enough
#
# Each field gets a threshold of its own: the lowest one at which, among the labeled
# texts, the small model is wrong in at most one of ten values that it keeps.
#
# Few examples prove little, so the expected error is `(errors + 1) / (kept + 2)`:
# eight values without an error still mean one of ten, and 5 % takes eighteen. As
# the thresholds are chosen on these texts, even that is a little too good. Label
# more of them before you rely on it, and never calibrate on the texts that you want
# answered.

# %%
LIMIT = 0.1


def calibrate(judged: Iterable[tuple[float, bool]]) -> tuple[float, float]:
    """Return the lowest threshold within the limit, and the expected error.

    Args:
        judged: The probabilities of values, and whether they were right.
    """
    judged = sorted(judged)
    for threshold, _ in judged:
        kept = [right for probability, right in judged if probability >= threshold]
        error = (kept.count(False) + 1) / (len(kept) + 2)
        if error <= LIMIT:
            return threshold, error
    return math.inf, 0  # nothing stays with the small model


with Path("data/reviews.csv").open(encoding="utf-8", newline="") as file:
    labeled = list(csv.DictReader(file))
results = [read(each) for each in extract.batch([row["text"] for row in labeled])]

thresholds, errors = {}, {}
for name in FIELDS:
    thresholds[name], errors[name] = calibrate(
        (sure.get(name, 0), values[name] == row[name])
        for row, (values, sure) in zip(labeled, results, strict=True)
    )
    if thresholds[name] == math.inf:
        print(f"{name}: the large model is asked for all of them")
    else:
        print(
            f"{name}: kept from {thresholds[name]:.0%} on, error {errors[name]:.0%}"
        )

# %% [markdown]
# ## The cascade
#
# The large model gets a schema with only the fields that are missing, so it writes
# no others. The cascade is a runnable: it has `batch`, `ainvoke` and the rest, and
# while the large model answers for one text, the small one reads the next.


# %%
def ask_large(text: str, fields: list[str]) -> dict[str, str]:
    """Ask the large model for some of the fields."""
    types: dict[str, Any] = {
        name: (Review.model_fields[name].annotation, ...) for name in fields
    }
    schema: type[BaseModel] = create_model("Review", **types)
    prompt = f"Give the {' and the '.join(fields)} of this review: {text}"
    result = large.with_structured_output(schema).invoke(prompt)
    return schema.model_validate(result).model_dump()


def answer(text: str) -> tuple[Review, list[str]]:
    """Return the fields of a text, and the names of those of the large model."""
    values, sure = read(extract.invoke(text))
    unsure = [name for name in FIELDS if sure.get(name, 0) < thresholds[name]]
    if unsure:
        values |= ask_large(text, unsure)
    return Review.model_validate(values), unsure


def answer_alone(text: str) -> Review:
    """Return the fields of a text, all of them from the large model."""
    return Review.model_validate(ask_large(text, FIELDS))


cascade, alone = RunnableLambda(answer), RunnableLambda(answer_alone)

# %% [markdown]
# ## The texts

# %%
REVIEWS = [
    "I read by this lamp every night, I love it.",
    "The radio is broken, I want my money back.",
    "Lovely! I listen to the news on it every evening.",
    "Comfortable and pretty, a very good chair.",
    "It is always five minutes late, useless.",
    "The chair was broken when it came.",
    "A wonderful clock for our kitchen.",
    "The water never boils, what a waste.",
]
begin = time.perf_counter()
answers = cascade.batch(REVIEWS)
cascade_seconds = time.perf_counter() - begin

for text, (review, unsure) in zip(REVIEWS, answers, strict=True):
    print(text)
    for name, value in review:
        print(f"  {name}: {value}{' (large model)' if name in unsure else ''}")

# %% [markdown]
# ## What it saves
#
# Some of what stayed may be wrong: the expected error says how much. What the large
# model gets wrong comes on top. To compare the time, ask it for everything.

# %%
stayed = [name for _, unsure in answers for name in FIELDS if name not in unsure]
total = len(REVIEWS) * len(FIELDS)
print(f"Stayed with the small model: {len(stayed) / total:.0%} of {total} fields")
if stayed:
    expected = sum(errors[name] for name in stayed) / len(stayed)
    print(f"Expected error of these: {expected:.0%}")
    assert expected <= LIMIT

begin = time.perf_counter()
alone.batch(REVIEWS)
large_seconds = time.perf_counter() - begin
print(
    f"Time: {cascade_seconds:.1f} s; the large model alone: {large_seconds:.1f} s"
)

# %% [markdown]
# A cascade pays if the large model is much slower, and is asked for few fields.
# Otherwise it only costs memory for two models.
