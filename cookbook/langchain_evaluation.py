# %% [markdown]
# # Evaluate responses with a judge model in LangChain
#
# An evaluation asks a small set of questions after each change of your prompt or
# model. Code checks exact values, and a second, larger model judges the rest (LLM
# as a judge).

# %%
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The models
#
# The first is the model to evaluate, the second is its judge. With Auto-Evict, LM
# Studio would unload one of them for the other; `load_policy="explicit"` keeps the
# judge loaded.

# %%
model = ChatLMStudio(model="qwen/qwen3-1.7b", temperature=0)
judge_model = ChatLMStudio(
    model="qwen/qwen3-14b", temperature=0, load_policy="explicit"
)

# %% [markdown]
# This is the chain to evaluate; take your own.

# %%
TEXT = """The ferry to the island leaves every hour from 7:30 to 18:30.
Adults pay nine euros, and children half. Pets travel for free."""

PROMPT = """Answer the question from the text, in one sentence.

Text: {text}

Question: {question}"""
chain = ChatPromptTemplate.from_template(PROMPT) | model | StrOutputParser()

# %% [markdown]
# ## The questions
#
# Each has spellings of which a right response contains one. The text does not
# answer the last question, which shows whether the model invents things.

# %%
EXPECTED = {
    "When does the last ferry leave?": {"18:30", "6:30"},
    "What do two adults pay?": {"18 ", "eighteen"},
    "What does a dog pay?": {"free", "nothing", "not pay"},
    "Who is the captain?": {"not ", "n't", "no information"},
}

# %% [markdown]
# ## The judge
#
# A rubric asks for yes or no, as grades from 1 to 10 differ from run to run. The
# reason comes first, because the model writes the fields in order.


# %%
class Verdict(BaseModel):
    """What the judge says of a response."""

    reason: str = Field(max_length=200)
    faithful: bool
    complete: bool


RUBRIC = ChatPromptTemplate.from_template(
    """Judge a response by two criteria. Give a short reason first.

faithful: everything in the response is stated in the text, or follows from it.
complete: it answers the question, or says that the text does not.

Text: {text}

Question: {question}
Response: {response}"""
)
judge = RUBRIC | judge_model.with_structured_output(Verdict)

# %% [markdown]
# ## The results

# %%
cases = [{"text": TEXT, "question": question} for question in EXPECTED]
for case, response in zip(cases, chain.batch(cases), strict=True):
    case["response"] = response.strip()

for case, verdict in zip(cases, judge.batch(cases), strict=True):
    spellings = EXPECTED[case["question"]]
    exact = any(each in case["response"].lower() for each in spellings)
    print(case["question"], case["response"])
    print(f"  {exact=}, {verdict.faithful=}, {verdict.complete=}")
    if not (verdict.faithful and verdict.complete):
        print(f"  {verdict.reason}")

# %% [markdown]
# ## What the judge is worth
#
# It overlooks what it would have to compute, such as a price: check by code
# whatever code can check. Read twenty verdicts yourself before you trust the
# others.
