# %% [markdown]
# # Summarize a document longer than the context window in LangChain
#
# Split a document by the model's own tokens, summarize the parts, and then the
# summaries, until there is one. Any model will do.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from datetime import date, timedelta

from langchain_core.prompts import ChatPromptTemplate
from langchain_text_splitters import RecursiveCharacterTextSplitter

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The document
#
# The log of a harbor, with a line for each day; take your own.

# %%
EVENTS = {
    45: "The crane fell into the harbor. Nobody was hurt.",
    130: "The new ferry Anna made its first crossing.",
    222: "A storm broke the north pier.",
    340: "The north pier was opened again.",
}
document = "\n".join(
    f"{date(2025, 1, 1) + timedelta(day):%d %B}: {12 + day % 7} ferries, "
    f"{300 + 37 * day % 160} passengers. {EVENTS.get(day, 'A quiet day.')}"
    for day in range(365)
)

# %% [markdown]
# ## The context window
#
# It has to hold the prompt, a part of the document and the summary. The server
# counts the tokens of the prompt with the model's own template, so the rest is
# exact. The recipe uses at most 2,048 tokens, so that it has something to split;
# leave `min` out.

# %%
SUMMARY_TOKENS = 300

prompt = ChatPromptTemplate.from_template(
    """Summarize this part of a harbor's log in at most five sentences.
Name every event that is not an ordinary day, with its date.

{text}"""
)
model = ChatLMStudio(temperature=0, max_tokens=SUMMARY_TOKENS).load()
window = min(model.profile.get("max_input_tokens", 0), 2048)
around = model.get_num_tokens_from_messages(prompt.format_messages(text=""))
part_tokens = window - around - SUMMARY_TOKENS

# %% [markdown]
# ## Split
#
# The splitter keeps lines whole. One percent is left free, as tokens can change
# where a part meets the prompt.

# %%
splitter = RecursiveCharacterTextSplitter(
    chunk_size=part_tokens * 99 // 100,
    chunk_overlap=0,
    length_function=model.get_num_tokens,
)
parts = splitter.split_text(document)
print(f"The document has {model.get_num_tokens(document):,} tokens.")
print(f"A part may have {part_tokens:,}: that makes {len(parts)} parts.")
assert len(parts) > 1

# %% [markdown]
# ## Summarize
#
# `batch` sends the parts together. Their summaries are the next document, until
# they fit into one part.

# %%
calls = 0
while True:
    responses = (prompt | model).batch([{"text": part} for part in parts])
    for response in responses:
        calls += 1
        assert response.usage_metadata
        tokens = response.usage_metadata["input_tokens"]
        assert tokens + SUMMARY_TOKENS <= window
        print(f"Call {calls} ({tokens:,} tokens): {response.text}")
    if not any(response.text.strip() for response in responses):
        raise SystemExit("The model did not write a summary; take a larger model.")
    if len(parts) == 1:
        break
    parts = splitter.split_text("\n".join(each.text for each in responses))
