"""How scripted models decide and rerank: as their rules say, else by the words that texts have in common.

`rules.py` imports it on first use.
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.engines.scripted.rules import Answers, Relevance, Rule, Word
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.types.decisions import Choice, Noul, Question, Score, options_of, parse_questions
from lmstudio_integrations.types.reranking import QUESTION, QWEN3_RERANKER

_LEAST = 0.01
"""The weight of an option that has no word in common with the state."""

_IRRELEVANT = 0.01
"""The relevance of a text that no rule matches, if there are rules for relevance."""


def state_text(state: object) -> str:
    """Return a state as text."""
    return state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)


def decide(request: Mapping[str, Any], rule: Rule | None) -> dict[str, Any]:
    """Return the answers to a request (docs/protocol.md#decisions), as a rule gives them.

    Raises:
        WireError: If the given probabilities fit no question.
    """
    steps = [step for step in (rule.then if rule else ()) if isinstance(step, Answers)]
    given = {name: answer for step in steps for name, answer in step.answers.items()}
    state, questions = state_text(request["state"]), parse_questions(request["questions"])
    answers = {name: _answer(name, question, state, given.get(name)) for name, question in questions.items()}
    asked = sum(words.count(state_text(question)) for question in request["questions"].values())
    usage = {"input_tokens": words.count(state) + asked, "output_tokens": len(questions)}
    return {"answers": answers, "usage": usage}


def _answer(name: str, question: Question, state: str, given: float | Mapping[str, float] | None) -> dict[str, Any]:
    probabilities = _probabilities(question, state) if given is None else _completed(name, question, given)
    confidence = max(probabilities.values())
    match question:
        case Noul():
            return {"type": "noul", "noul": probabilities["true"]}
        case Choice():
            chosen = max(probabilities, key=probabilities.__getitem__)
            return {"type": "choice", "choice": chosen, "probabilities": probabilities, "confidence": confidence}
        case Score():
            return {
                "type": "score",
                "score": sum(int(level) * probability for level, probability in probabilities.items()),
                "legend": options_of(question),
                "probabilities": probabilities,
                "confidence": confidence,
            }


def _probabilities(question: Question, state: str) -> dict[str, float]:
    weights = {
        option: max(coverage(f"{option} {state_text(description or '')}", state), _LEAST)
        for option, description in options_of(question).items()
    }
    if isinstance(question, Noul) and question.criteria is None:
        yes = max(coverage(state_text(question.instructions), state), _LEAST)
        weights = {"true": yes, "false": max(1 - yes, _LEAST)}
    whole = sum(weights.values())
    return {option: weight / whole for option, weight in weights.items()}


def coverage(query: str, text: str) -> float:
    """Return how much of a query a text has, from 0 to 1: of its words, and of the trigrams in them."""
    features, features_of_text = list(words.features(query)), {feature for feature, _ in words.features(text)}
    whole = sum(weight for _, weight in features)
    return sum(weight for feature, weight in features if feature in features_of_text) / whole if whole else 0.0


def _completed(name: str, question: Question, given: float | Mapping[str, float]) -> dict[str, float]:
    named = {"true": given} if isinstance(given, int | float) else dict(given)
    options = options_of(question)
    others = [option for option in options if option not in named]
    left = 1 - sum(named.values())
    if not named.keys() <= options.keys() or left < -1e-9 or (not others and left > 1e-9):
        raise WireError(f"The probabilities of the rule do not fit the question {name!r}: {given!r}")
    return {option: named.get(option, left / max(len(others), 1)) for option in options}


_ASKED = re.compile(r"(?s)(.*)\n\nQuestion: (.*)\nAnswer with (?:one word|the letter)")
"""The prompt of `decide` for a language model: the state, the question, and its options."""


def read_prompt(prompt: str) -> tuple[str, Word | None]:
    """Return the text that a raw prompt is about, and what answers it with a word if it asks for one."""
    reranked = rerank_prompt(prompt)
    if reranked is not None:
        return reranked.text, partial(_relevance, reranked)
    answers = _first_word(prompt)
    return prompt, None if answers is None else lambda _: answers


def _relevance(prompt: "RerankPrompt", rules: Sequence[Rule]) -> dict[str, float]:
    has_rules = any(isinstance(step, Relevance) for rule in rules for step in rule.then)
    relevance = _IRRELEVANT if has_rules else coverage(prompt.query, prompt.text)
    return Relevance(relevance=relevance).probabilities


def _first_word(prompt: str) -> dict[str, float] | None:
    """Return the words with which a language model might answer a question, with probabilities; `None` for others."""
    asked = _ASKED.match(prompt)
    if asked is None:
        return None
    state, question = asked.groups()
    options = _options(question)
    if not options:
        yes = min(max(coverage(question.partition("\n")[0], state), _LEAST), 1 - _LEAST)
        return {"yes": yes, "no": 1 - yes}
    weights = {letter: max(coverage(text, state), _LEAST) for letter, text in options.items()}
    return {letter: weight / sum(weights.values()) for letter, weight in weights.items()}


def _options(question: str) -> dict[str, str]:
    """Return the options of a question by their letters. An option may have several lines, as docstrings do."""
    options: dict[str, str] = {}
    rest = question
    for letter in string.ascii_uppercase:
        before, mark, after = rest.partition(f"\n{letter}. ")
        if not mark:
            break
        if options:
            options[chr(ord(letter) - 1)] = before
        options[letter] = rest = after
    return options


_FORMS = [re.split(r"\{\w+\}", prompt)[1:] for prompt in (QWEN3_RERANKER.prompt, QUESTION)]
"""What stands before the query, before the text, and after it, in each form."""


class RerankPrompt(NamedTuple):
    """What a reranker compares."""

    query: str
    text: str


def rerank_prompt(prompt: str) -> RerankPrompt | None:
    """Return what the prompt of a reranker compares; `None` for another prompt."""
    for before_query, before_text, after_text in _FORMS:
        _, _, rest = prompt.partition(before_query)
        query, _, rest = rest.partition(before_text)
        text, is_found, _ = rest.rpartition(after_text)
        if is_found:
            return RerankPrompt(query, text)
    return None
