"""`decide` of a language model: the prompts of typed questions about a state, and their answers by first tokens.

Each question is a prediction of one token: yes or no, or the letter of an option. Models prefer some letters, so the
options are asked in several orders, whose answers are averaged. The state comes first in every prompt, so it is
processed once.
"""

import string
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.embeddings import SPECIAL_TOKENS, utf8_length
from lmstudio_integrations.client.predictions.decisions.first_token import FirstTokens, Probabilities, ask_all
from lmstudio_integrations.client.predictions.decisions.prompts import in_chat_template, neutral
from lmstudio_integrations.client.predictions.decisions.states import (
    as_text,
    questions_of,
    reject_media,
    state_of,
    state_text,
)
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.client.support.arguments import check_names, whole_number
from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioUnsupportedError,
    LMStudioValueError,
)
from lmstudio_integrations.types.decisions import (
    Decision,
    Measured,
    Noul,
    Question,
    answer_of,
    options_of,
)
from lmstudio_integrations.types.models import ModelInstanceInfo

LETTERS = string.ascii_uppercase
DEFAULT_PERMUTATIONS = 2

_PLACE = "{prompt}"


class DecideParameters(TypedDict, total=False):
    """The keyword arguments of `decide`.

    Attributes:
        permutations: In how many orders the options of a question are asked, at most as many as there are options. The
            default is 2. Each order is one prediction, and tells more of how much the order matters.
        max_concurrency: How many predictions run at once. By default as many as the instances run.
        on_progress: Called with the share of the predictions that are done, from 0.0 to 1.0. It must not be async.
    """

    permutations: int | None
    max_concurrency: int | None
    on_progress: Callable[[float], Any] | None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prediction: a question, with its options in one order.

    Attributes:
        name: The id of the question.
        text: The end of the prompt.
        answers: What the model may say, in the order of the options.
    """

    name: str
    text: str
    answers: tuple[str, ...]


class Deciding:
    """One call of `decide`.

    Args:
        model: The model.
        state: What the questions are about: text, or JSON such as a list of messages.
        questions: The questions by their ids.
        parameters: The keyword arguments.
        marks_unanswered: Whether a question of which the model would say none of the answers has an `unseen` of 1,
            which callers check. By default, it is an error.

    Raises:
        LMStudioValueError: If an argument is invalid.
    """

    def __init__(
        self,
        model: PredictingModel,
        state: object,
        questions: Mapping[str, Any],
        parameters: DecideParameters,
        *,
        marks_unanswered: bool = False,
    ) -> None:
        check_names(parameters, DecideParameters.__annotations__)
        self._model = model
        self._marks_unanswered = marks_unanswered
        self._state = state_of(state)
        self._text = state_text(self._state)
        self._questions = questions_of(questions)
        permutations = whole_number(parameters.get("permutations"), "permutations") or DEFAULT_PERMUTATIONS
        self._at_once = whole_number(parameters.get("max_concurrency"), "max_concurrency")
        self._on_progress = parameters.get("on_progress")
        self._prompts = [
            each for name in self._questions for each in _orders(name, self._questions[name], permutations)
        ]

    def run(self) -> Flow[Decision]:
        """Return the answers."""
        info = yield from self._model.get_info(load=True)  # it may be a decision model, and those may see images
        reject_media(self._state)
        before, _, after = (yield from in_chat_template(self._model, _PLACE)).partition(_PLACE)
        prompts = [before + neutral(f"{self._text}\n\n{each.text}", before + after) + after for each in self._prompts]
        yield from self._check_window(prompts, info)
        tokens, measured = FirstTokens(), defaultdict[str, list[Probabilities]](list)
        input_tokens = output_tokens = done = 0

        def ask(model: PredictingModel, number: int) -> Flow[None]:
            nonlocal input_tokens, output_tokens, done
            asked = self._prompts[number]
            probabilities, result = yield from tokens.ask(model, prompts[number], asked.answers)
            if probabilities.shares is None and not self._marks_unanswered:
                raise LMStudioUnsupportedError(
                    f"{info.model_key!r} answers the question {asked.name!r} with none of {', '.join(asked.answers)}; "
                    "use a model that follows instructions"
                )
            measured[asked.name].append(probabilities)
            input_tokens += result.stats.prompt_tokens_count or 0
            output_tokens += result.stats.predicted_tokens_count or 0
            done += 1
            if self._on_progress is not None:
                self._on_progress(done / len(prompts))

        yield from ask_all(self._model, len(prompts), self._at_once, ask)
        answers = {name: answer_of(question, _measured(measured[name])) for name, question in self._questions.items()}
        return Decision(str(info.model_key), answers, input_tokens, output_tokens)

    def _check_window(self, prompts: Sequence[str], info: ModelInstanceInfo) -> Flow[None]:
        """Check that the longest prompt fits: no state is cut.

        Raises:
            LMStudioContextOverflowError: If it does not.
        """
        longest, limit = max(prompts, key=utf8_length), info.context_length - SPECIAL_TOKENS
        if utf8_length(longest) < limit:
            return
        used = cast("int", (yield from self._model.count_tokens(longest)))
        if used >= limit:
            raise LMStudioContextOverflowError(
                f"the state and a question take {used} of {info.context_length} tokens; shorten the state, or load the "
                "model with a larger context_length",
                used=used,
                limit=info.context_length,
            )


def _orders(name: str, question: Question, permutations: int) -> list[_Prompt]:
    """Return the predictions of a question, one for each order of its options.

    Raises:
        LMStudioValueError: If there are more options than letters, or media in it.
    """
    options = options_of(question)
    reject_media([question.instructions, *options.values()])
    instructions = as_text(question.instructions)
    if isinstance(question, Noul):
        words = {"true": "yes", "false": "no"}
        lines = [f"{words[option]}: {as_text(each)}" for option, each in options.items() if each is not None]
        text = "\n".join([f"Question: {instructions}", *lines, "Answer with one word, yes or no."])
        return [_Prompt(name, text, tuple(words[option] for option in options))]
    if len(options) > len(LETTERS):
        raise LMStudioValueError(
            f"the question {name!r} has {len(options)} options, and there are {len(LETTERS)} letters; ask for a group "
            "of options first, and for one of the group then"
        )
    described = [
        as_text(each) if question.type == "score" else option if each is None else f"{option}: {as_text(each)}"
        for option, each in options.items()
    ]
    orders = min(permutations, len(described))
    asked: list[_Prompt] = []
    for order in range(orders):
        shift = order * len(described) // orders
        letters = [LETTERS[(at + shift) % len(described)] for at in range(len(described))]
        lines = sorted(f"{letter}. {text}" for letter, text in zip(letters, described, strict=True))
        text = "\n".join([f"Question: {instructions}", *lines, "Answer with the letter of one option."])
        asked.append(_Prompt(name, text, tuple(letters)))
    return asked


def _measured(found: Sequence[Probabilities]) -> Measured:
    """Return the mean of the answers in several orders, and how far these lie apart."""
    shares = [each.shares or [1 / len(each.answers)] * len(each.answers) for each in found]
    by_option = list(zip(*shares, strict=True))
    return Measured(
        probabilities=[sum(each) / len(each) for each in by_option],
        spread=max(max(each) - min(each) for each in by_option) if len(found) > 1 else None,
        unseen=max(each.uncertainty for each in found),
    )
