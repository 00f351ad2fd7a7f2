"""How sure a small model is of reviews that are clear, and of those that are not.

`python -m benchmarks.confidence [--plot FILE.svg]`

Needs llama.cpp and, with `--plot`, matplotlib. The model is one of 135 million parameters, on the emulator, at
temperature 0: two runs on one machine agree.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from benchmarks.page import OURS_COLOR, PEER_COLOR, STYLE
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio

EXAMPLES = {
    "I really like it.": "positive",
    "It is broken and useless.": "negative",
    "Very happy with it.": "positive",
    "A bad product, do not buy.": "negative",
}
REVIEWS = (
    "Wonderful! I love it and use it every day.",
    "It works as described.",
    "The best purchase of the year.",
    "It is fine, nothing special.",
    "Great battery, but it broke after a week.",
    "I expected more.",
    "Awful. I hate it, a waste of money.",
    "Good picture, terrible sound.",
    "It stopped working and support never replied.",
)


class Review(BaseModel):
    """The classification of a review."""

    sentiment: Literal["positive", "negative"]


class Sure(NamedTuple):
    """The response to a review, and the probabilities of it and of the alternative."""

    review: str
    sentiment: str
    probability: float
    alternative: float


def measure() -> list[Sure]:
    """Classify the reviews, the one of which the model is surest first."""
    shots: list[tuple[str, str]] = []
    for review, sentiment in EXAMPLES.items():
        shots += [("user", f"Review: {review}"), ("assistant", json.dumps({"sentiment": sentiment}))]
    rows: list[Sure] = []
    with Emulator([ModelEntry(key="chat", weights="smollm2-135m-instruct", context_length=2048)]) as server:
        model = ChatLMStudio(model="chat", host=server.address, temperature=0, repeat_penalty=False, max_tokens=50)
        chain = model.with_structured_output(Review, include_raw=True, include_confidence=True)
        for review in REVIEWS:
            question = [("system", "Is the review positive or negative? Respond with JSON."), *shots]
            result = chain.invoke([*question, ("user", f"Review: {review}")])
            found = result["confidence"]["sentiment"]
            other = found.alternative_probability or 0.0
            rows.append(Sure(review, result["parsed"].sentiment, found.probability, other))
    return sorted(rows, key=lambda row: -row.probability)


def plot(rows: list[Sure], path: Path) -> None:
    """Draw the probability of each response beside that of the alternative."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": "confidence"}
    with mpl.rc_context(style):
        canvas, axes = plt.subplots(figsize=(6.4, 3.2))
        for at, row in enumerate(rows):
            alternative = next(name for name in ("positive", "negative") if name != row.sentiment)
            axes.barh(at, row.probability, color=OURS_COLOR, label="" if at else "the response")
            axes.barh(
                at, row.alternative, left=row.probability, color=PEER_COLOR, label="" if at else "the alternative"
            )
            axes.text(0.01, at, f"{row.sentiment} {row.probability:.2f}", va="center", color="white")
            axes.text(row.probability + row.alternative + 0.01, at, f"{alternative} {row.alternative:.2f}", va="center")
        axes.set_yticks(range(len(rows)), [row.review for row in rows])
        axes.set(xlim=(0, 1.25), xticks=(0, 0.5, 1), xlabel="probability")
        axes.invert_yaxis()  # the first bar is on top
        axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        canvas.tight_layout()
        canvas.savefig(path, metadata={"Date": None})
    drawn = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in drawn), encoding="utf-8")


def main() -> None:
    """Measure, print a table, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the SVG to draw")
    arguments = parser.parse_args()
    rows = measure()
    for row in rows:
        print(f"{row.review:46} {row.sentiment} {row.probability:.2f}, alternative {row.alternative:.2f}")
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
