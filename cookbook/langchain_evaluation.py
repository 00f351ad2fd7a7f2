# %% [markdown]
# # Evaluate responses with a judge model in LangChain
#
# A small set of questions, run against your chain after each change of the prompt
# or the model. Code checks exact values. What code cannot check, a second model
# judges (LLM as a judge): by a rubric, with a reason for each score, and by
# comparing two versions in both orders.

# %%
from dataclasses import dataclass
from typing import Literal

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The models
#
# Load two models. The smaller one responds, and the larger one is its judge. With
# one model the recipe runs, too, but a model is lenient with its own responses.

# %%
try:
    lms.llm()  # fails if no language model is loaded
    infos = [model.get_info() for model in lms.list_loaded_models("llm")]
except lms.LMStudioError as error:
    raise SystemExit(error) from None
infos.sort(key=lambda info: info.size_bytes)
names = [info.identifier for info in infos]
print("Model:", names[0])
print("Judge:", names[-1])

# %%
model = ChatLMStudio(model=names[0], temperature=0)
judge_model = ChatLMStudio(model=names[-1], temperature=0)

# %% [markdown]
# ## The chain
#
# This is what you evaluate; take your own. Temperature 0 makes runs comparable.

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
# ## The rubric
#
# A rubric asks for yes or no to each of a few criteria; grades from 1 to 10 differ
# from run to run. The score is the number of criteria that are met.
#
# The verdict is structured output, so nothing has to be parsed. The reason comes
# before the verdict, because the model writes the fields in this order: it gives
# its reason first, and not an excuse for a verdict.


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

print(f"{'question':33}{'exact':7}{'faithful':10}{'complete':10}response")
for case, response, verdict in results:
    exact = "ok" if case.is_met(response) else "WRONG"
    faithful = "yes" if verdict.faithful else "NO"
    complete = "yes" if verdict.complete else "NO"
    print(
        f"{case.question:33}{exact:7}{faithful:10}{complete:10}{response.strip()}"
    )
assert len(results) == len(CASES)

# %% [markdown]
# The score, and the reasons of the judge where a check failed:

# %%
met = sum(case.is_met(response) for case, response, _ in results)
score = sum(verdict.faithful + verdict.complete for verdict in verdicts)
print(f"Exact: {met} of {len(CASES)}. Rubric: {score} of {2 * len(CASES)} points.")
for case, response, verdict in results:
    if not (case.is_met(response) and verdict.faithful and verdict.complete):
        print(f"{case.question} {verdict.reason}")

# %% [markdown]
# ## Compare two versions
#
# It is easier to say which of two responses is better than to give each a score.
# But many models prefer the response that they read first, whatever it says. So
# each pair is judged in both orders, and only a response that wins both is better.


# %%
class Choice(BaseModel):
    """Which of two responses is better."""

    reason: str = Field(max_length=200)
    better: Literal["first", "second"]


COMPARISON = ChatPromptTemplate.from_template(
    """Which response to the question is better, the first or the second?
A response is worse if it says something that the text does not say.

Text: {text}

Question: {question}
First: {first}
Second: {second}"""
)
referee = COMPARISON | judge_model.with_structured_output(Choice)

NEW = PROMPT.replace("sentence.", "sentence. If it has no answer, say so.")
new_chain = ChatPromptTemplate.from_template(NEW) | model | StrOutputParser()
new_responses = new_chain.batch(inputs)


def winner(given: dict[str, str], old: str, new: str) -> str:
    """Return which response is better in both orders, or why there is none."""
    if old == new:
        return "none, both responses are the same"
    orders = [{"first": old, "second": new}, {"first": new, "second": old}]
    choices = referee.batch([{**given, **order} for order in orders])
    better = [Choice.model_validate(each).better for each in choices]
    return {("first", "second"): "old", ("second", "first"): "new"}.get(
        (better[0], better[1]), "none, the order decides"
    )


for given, old, new in zip(inputs, responses, new_responses, strict=True):
    print(f"{given['question']} Better prompt: {winner(given, old, new)}")

# %% [markdown]
# ## What the judge is worth
#
# A judge makes the mistakes of its model. It is lenient with responses of the same
# model, prefers long ones, and overlooks numbers that it would have to compute. A
# small model approves nearly everything. So:
#
# - Check by code whatever code can check.
# - Let a larger model judge than the one that responds.
# - Read twenty verdicts yourself before you trust the others, and look at trends of
#   many questions, not at one verdict.
