# %% [markdown]
# # Classify the rows of a CSV file in LangChain, and resume
#
# The model chooses one of your labels for each row, and every result is written at
# once. If the program is stopped, the next run does only the rows that are missing.
# Any model will do.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
import csv
import tempfile
from pathlib import Path
from typing import Literal

from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The labels
#
# The server's grammar allows nothing but these labels. What each means stands in
# the prompt.


# %%
class Message(BaseModel):
    """What a message is."""

    label: Literal["praise", "complaint", "question"]


prompt = ChatPromptTemplate.from_template(
    """A passenger of a ferry has written this message:

{text}

Is it praise, a complaint, or a question that wants an answer?"""
)
classifier = prompt | ChatLMStudio(temperature=0).with_structured_output(Message)

# %% [markdown]
# ## The files
#
# The result has the ID of its row, so rows can be written in any order.

# %%
with Path("data/messages.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))

temporary = tempfile.TemporaryDirectory()
results = Path(temporary.name, "labels.csv")
results.write_text("id,label\n", encoding="utf-8")


def labels() -> dict[str, str]:
    """Return the labels that are written, by the IDs of their rows."""
    with results.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["label"] for row in csv.DictReader(file)}


# %% [markdown]
# ## Classify
#
# `batch_as_completed` yields each result when it is there. `max_concurrency` is how
# many requests run together: the number that the model was loaded for. A row that
# fails is an exception in place of its result, and the next run tries it again.
#
# `stop_after` is only for this recipe: it ends the loop as Ctrl-C would.


# %%
def classify(stop_after: int | None = None) -> int:
    """Classify the rows that are not done; return how many were written."""
    done = labels()
    missing = [row for row in rows if row["id"] not in done]
    print(f"{len(done)} rows are done, {len(missing)} are missing.")
    written = 0
    with results.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for index, result in classifier.batch_as_completed(
            missing, config={"max_concurrency": 4}, return_exceptions=True
        ):
            if isinstance(result, Exception):
                print(f"Row {missing[index]['id']} failed: {result}")
                continue
            label = Message.model_validate(result).label
            writer.writerow([missing[index]["id"], label])
            file.flush()
            written += 1
            if written == stop_after:
                break
    return written


assert classify(stop_after=5) == 5

# %% [markdown]
# ## Resume
#
# Another run goes on where the first one was stopped, and the next one has nothing
# to do.

# %%
assert classify() == len(rows) - 5
assert classify() == 0

# %%
found = labels()
for row in rows[:5]:
    print(f"{found[row['id']]:10}{row['text']}")
temporary.cleanup()
