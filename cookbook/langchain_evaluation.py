# %% [markdown]
# # Evaluate responses in LangChain
#
# A small set of questions, run against your chain after each change of the prompt
# or the model. Code checks exact values; the model judges what code cannot, here
# whether the response adds something that the text does not say.

# %%
from dataclasses import dataclass

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# Any loaded model will do.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

# %% [markdown]
# ## The chain
#
# This is what you evaluate; take your own. Temperature 0 makes runs comparable.

# %%
TEXT = """The ferry to the island leaves every hour from 7:30 to 18:30.
Adults pay nine euros, and children half. Pets travel for free."""

prompt = ChatPromptTemplate.from_template(
    """Answer the question from the text, in one sentence.

Text: {text}

Question: {question}"""
)
model = ChatLMStudio(temperature=0)
chain = prompt | model | StrOutputParser()

# %% [markdown]
# ## The questions
#
# Each has what a right response contains, in several spellings. The last question
# cannot be answered from the text. Such questions belong in every set, as they show
# whether a model invents things.


# %%
@dataclass
class Case:
    """A question, and spellings of which a right response contains one."""

    question: str
    expected: set[str]

    def is_met(self, response: str) -> bool:
        """Return whether the response contains one of the spellings."""
        return any(each in response.lower() for each in self.expected)


CASES = [
    Case("When does the last ferry leave?", {"18:30", "6:30"}),
    Case("What do two adults pay?", {"18 ", "eighteen"}),
    Case("What does a dog pay?", {"free", "nothing", "not pay", "no fare"}),
    Case("Who is the captain?", {"not ", "n't", "no information"}),
]


# %% [markdown]
# ## The judge
#
# Its verdict is structured output, so nothing has to be parsed. The reason comes
# before the verdict, because the model writes the fields in this order: it gives
# its reason first, and not an excuse for a verdict.


# %%
class Verdict(BaseModel):
    """Whether a response keeps to the text."""

    reason: str = Field(max_length=200)
    faithful: bool


JUDGE = ChatPromptTemplate.from_template(
    """Is everything in the response stated in the text, or does it follow from it?
Give a short reason, then say whether the response is faithful to the text.
"The text does not say" is faithful if the text has no answer.

Text: {text}

Question: {question}
Response: {response}"""
)
judge = JUDGE | model.with_structured_output(Verdict)

# %% [markdown]
# ## Run
#
# `batch` sends all questions at once, and then all responses to the judge.

# %%
inputs = [{"text": TEXT, "question": case.question} for case in CASES]
responses = chain.batch(inputs)
pairs = zip(inputs, responses, strict=True)
verdicts = [
    Verdict.model_validate(each)
    for each in judge.batch([{**each, "response": text} for each, text in pairs])
]
results = list(zip(CASES, responses, verdicts, strict=True))

print(f"{'question':33}{'exact':8}{'faithful':10}response")
for case, response, verdict in results:
    exact = "ok" if case.is_met(response) else "WRONG"
    faithful = "yes" if verdict.faithful else "NO"
    print(f"{case.question:33}{exact:8}{faithful:10}{response.strip()}")
assert len(results) == len(CASES)

# %% [markdown]
# The reasons of the judge, where one of the two checks failed:

# %%
for case, response, verdict in results:
    if not (case.is_met(response) and verdict.faithful):
        print(f"{case.question} {verdict.reason}")

# %%
met = sum(case.is_met(response) for case, response, _ in results)
approved = sum(verdict.faithful for verdict in verdicts)
print(f"{met} of {len(CASES)} are exact, {approved} are faithful")

# %% [markdown]
# ## What the judge is worth
#
# A judge makes the mistakes of its model. It is lenient with responses of the same
# model, prefers long ones, and overlooks numbers that it would have to compute. A
# small model approves nearly everything. So:
#
# - Check by code whatever code can check.
# - Let a larger model judge than the one that responds, for example
#   `ChatLMStudio(model="qwen/qwen3-14b")`.
# - Read twenty verdicts yourself before you trust the others, and look at trends of
#   many questions, not at one verdict.
# - Ask for yes or no. Grades from 1 to 10 differ from run to run.
