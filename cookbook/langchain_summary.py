# %% [markdown]
# # Summarize a document longer than the context window in LangChain
#
# Split a long document by the model's own tokens, summarize the parts, and then the
# summaries, until there is one. Nothing is cut off, and you know before the start
# how many calls it takes.

# %%
from datetime import date, timedelta

from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# Any loaded model will do.

# %%
try:
    info = lms.llm().get_info()
except lms.LMStudioError as error:
    raise SystemExit(error) from None
print("Model:", info.model_key)

# %% [markdown]
# ## The document
#
# Take your own text. This one is the log of a harbor, with a line for each day.
# On four days of the year something happened.

# %%
EVENTS = {
    45: "The crane fell into the harbor. Nobody was hurt.",
    130: "The new ferry Anna made its first crossing.",
    222: "A storm broke the north pier.",
    340: "The north pier was opened again.",
}
lines = [
    f"{date(2025, 1, 1) + timedelta(day):%d %B}: {12 + day % 7} ferries, "
    f"{300 + 37 * day % 160} passengers. {EVENTS.get(day, 'A quiet day.')}"
    for day in range(365)
]
document = "\n".join(lines)

# %% [markdown]
# ## The context window
#
# It has to hold the prompt, a part of the document and the summary. The server
# counts the tokens of the prompt with the model's own template, so what is left for
# the part is exact.
#
# The recipe uses at most 2,048 tokens of the window, so that it has something to
# split. In your program, leave `min` out: a large window needs fewer calls. Small
# parts have their use, too, because their summaries keep more.

# %%
SUMMARY_TOKENS = 300

prompt = ChatPromptTemplate.from_template(
    """Summarize this part of a harbor's log in at most five sentences.
Name every event that is not an ordinary day, with its date.

{text}"""
)
model = ChatLMStudio(temperature=0, max_tokens=SUMMARY_TOKENS)
window = min(info.context_length, 2048)
around = model.get_num_tokens_from_messages(prompt.format_messages(text=""))
part_tokens = window - around - SUMMARY_TOKENS

# %% [markdown]
# ## Split
#
# The splitter keeps lines whole, and asks the server how long they are. Where a
# part meets the prompt, two tokens can become one or three, so one percent is left
# free.

# %%
splitter = RecursiveCharacterTextSplitter(
    chunk_size=part_tokens * 99 // 100,
    chunk_overlap=0,
    length_function=model.get_num_tokens,
)
parts = splitter.split_text(document)
print(f"The document has {model.get_num_tokens(document):,} tokens.")
print(f"A part may have {part_tokens:,} of the {window:,} tokens of the window.")
print(f"That makes {len(parts)} parts, and {len(parts) + 1} calls.")
assert len(parts) > 1

# %% [markdown]
# ## Summarize
#
# `batch` sends the parts together. Their summaries are the next document. If they
# are still longer than one part, there is another round, with a few calls more.

# %%
calls = 0
while True:
    responses = (prompt | model).batch([{"text": part} for part in parts])
    for response in responses:
        calls += 1
        tokens = response.usage_metadata
        assert tokens
        assert tokens["input_tokens"] + SUMMARY_TOKENS <= window
        print(f"Call {calls} ({tokens['input_tokens']:,} tokens): {response.text}")
    if not any(response.text.strip() for response in responses):
        raise SystemExit("The model did not write a summary; take a larger model.")
    if len(parts) == 1:
        break
    parts = splitter.split_text("\n".join(each.text for each in responses))

# %%
summary = responses[0].text
print("Summary:", summary)
