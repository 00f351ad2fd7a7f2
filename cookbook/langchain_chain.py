# %% [markdown]
# # Build a chain in LangChain
#
# A chain of a prompt, a model on LM Studio, and a parser that returns the text.
# `ChatLMStudio()` means any loaded model.

# %% tags=["check"]
import lmstudio_integrations as lms

try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %%
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from lmstudio_integrations.langchain import ChatLMStudio

# %%
prompt = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer in one short sentence."),
        ("human", "What is the capital of {country}?"),
    ]
)
chain = prompt | ChatLMStudio(temperature=0) | StrOutputParser()

# %% [markdown]
# The chain takes a dict with the variables of the prompt. `invoke` returns the
# complete text.

# %%
response = chain.invoke({"country": "France"})
print("Response:", response)
if not response.strip():
    raise SystemExit("The model did not write any text; take a larger model.")

# %% [markdown]
# `stream` yields the text as it is generated.

# %%
print("Response:", end=" ")
chunks: list[str] = []
for chunk in chain.stream({"country": "Japan"}):
    print(chunk, end="", flush=True)
    chunks.append(chunk)
print()
assert len(chunks) > 1
