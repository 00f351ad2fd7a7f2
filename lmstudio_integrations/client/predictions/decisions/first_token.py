"""The probabilities of the first token of a response: one prediction of one token for each prompt, many at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import beginning
from lmstudio_integrations.client.concurrency.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.predictions.plan import plan_completion
from lmstudio_integrations.client.predictions.prediction import PredictingModel
from lmstudio_integrations.errors import LMStudioUnsupportedError
from lmstudio_integrations.types._log_probs import probability_of
from lmstudio_integrations.types.config import LlmPredictionConfig, switched_off, total_of
from lmstudio_integrations.types.decisions import LEAST_SHARE
from lmstudio_integrations.types.reranking import normal_word
from lmstudio_integrations.types.results import PredictionResult

FEW, MOST = 10, 100
"""The alternatives that are requested at first, and the most that a server reports."""

SPELLINGS = 6
"""In how many ways a word is usually a token: in lower, upper and title case, after a space or not."""

_TOLERANCE = 0.005
"""The most by which a spelling that was not reported may change a share."""

_SETTINGS = LlmPredictionConfig(
    max_tokens=1,
    temperature=1.0,
    top_k_sampling=-1,
    **switched_off("filter", "penalty"),
    context_overflow_policy="stopAtLimit",
    reasoning_parsing={"enabled": False, "startString": "<think>", "endString": "</think>"},
)
"""Settings under which the model's own probabilities are reported: LM Studio filters them as it filters tokens.

The tags of reasoning are tokens like others, which have probabilities: the model may draw one in place of an answer.
"""

_DRAWS = 5
"""How often to ask again if the response has ended with the first token. Servers need not report that one."""


class Probabilities(NamedTuple):
    """The probabilities of some answers, as far as they were reported.

    Attributes:
        answers: That of each answer, the sum of its spellings.
        unseen: The most that all spellings of an answer may have that were not reported.
        least: The most that one of them may have.
    """

    answers: tuple[float, ...]
    unseen: float
    least: float

    @classmethod
    def of(cls, token: Mapping[str, Any], answers: Sequence[str]) -> "Probabilities":
        """Return the probabilities in a token of the server and its alternatives."""
        reported = {_id_of(each): probability_of(each) or 0.0 for each in _alternatives(token)}
        sums = tuple(sum(p for (_, text), p in reported.items() if _spells(text, answer)) for answer in answers)
        rest = max(1.0 - sum(reported.values()), 0.0)
        least = min(rest, *reported.values())
        return cls(sums, min(rest, SPELLINGS * least), least)

    @property
    def are_exact(self) -> bool:
        """Whether what was not reported hardly matters."""
        return self.unseen <= _TOLERANCE * sum(self.answers)

    @property
    def are_meant(self) -> bool:
        """Whether the model would say one of the answers with at least `LEAST_SHARE` of its probability."""
        return sum(self.answers) >= LEAST_SHARE

    @property
    def uncertainty(self) -> float:
        """The most that a share may be wrong by; near 1 if the model would say something else."""
        whole = sum(self.answers)
        return self.unseen / (self.unseen + whole) if self.are_meant else 1 - whole

    @property
    def shares(self) -> list[float] | None:
        """The probabilities relative to each other; `None` without any.

        An answer that was not reported counts as the least alternative.
        """
        if not any(self.answers):
            return None
        known = [answer or self.least for answer in self.answers]
        return [each / sum(known) for each in known]


def _spells(text: str, answer: str) -> bool:
    """Whether a token is a spelling of an answer. After a space, a small letter is a word, such as the article "a"."""
    is_letter = len(answer) == 1 and answer.isupper()
    is_word = is_letter and text[:1].isspace() and text.strip().islower()
    return normal_word(text) == normal_word(answer) and not is_word


def has_log_probabilities(token: Mapping[str, Any]) -> bool:
    """Whether a token of the server, or one of its alternatives, has a log-probability other than that of nothing."""
    return any(each.get("logProb") is not None for each in _alternatives(token))


def _alternatives(token: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield the token that was drawn, and its alternatives; some servers have it in both."""
    yield token
    yield from token.get("candidates") or ()


def _id_of(token: Mapping[str, Any]) -> tuple[object, str]:
    return token.get("id"), str(token.get("text", ""))


class FirstTokens:
    """Asks for the first tokens of responses.

    Attributes:
        alternatives: How many alternatives to request; more from the first prompt on for which they say too little.
    """

    def __init__(self) -> None:
        self.alternatives: int = FEW

    def ask(
        self, model: PredictingModel, prompt: str, answers: Sequence[str]
    ) -> Flow[tuple[Probabilities, PredictionResult]]:
        """Return the probabilities of answers at the end of a prompt."""
        seed = None
        while True:
            asked = self.alternatives
            settings = _SETTINGS.merged(LlmPredictionConfig(log_probs=asked, seed=seed))
            plan = plan_completion(prompt, {"config": settings}, is_async=model.context.is_async)
            result = yield from model.predict(plan).to_end()
            token = result.tokens[0] if result.tokens else {}
            if not has_log_probabilities(token):
                _check_end(result)
                seed = (seed or 0) + 1
                if seed < _DRAWS:
                    continue
            probabilities = Probabilities.of(token, answers)
            if probabilities.are_exact or asked == MOST:
                return probabilities, result
            self.alternatives = MOST


def _check_end(result: PredictionResult) -> None:
    """Check that a response without log-probabilities has ended with its first token, which has no text.

    Raises:
        LMStudioUnsupportedError: If the server does not report any.
    """
    if result.raw_content:
        key = result.end.model_info.get("modelKey")
        raise LMStudioUnsupportedError(
            f"the server reported no log-probabilities for the response {beginning(result.raw_content)} of {key!r}, "
            "of which scores are made; update LM Studio and its runtime, or choose another format of the model, such "
            "as GGUF"
        )


def ask_all(
    model: PredictingModel, number: int, at_once: int | None, ask: Callable[[PredictingModel, int], Flow[None]]
) -> Flow[None]:
    """Ask several prompts that begin alike: one on each host first, so that the others find the beginning in the cache.

    Args:
        model: The model.
        number: How many prompts there are.
        at_once: How many are asked at once; `None` for as many as the instances run.
        ask: Asks one of them, by its number.
    """
    slots = yield from model.slots()
    numbers = iter(range(number))

    def ask_some(numbers: Iterable[int], make_mailbox: MakeMailbox) -> Flow[None]:
        own = model.with_context(lambda context: context.with_mailboxes(make_mailbox))
        for each in numbers:
            yield from ask(own, each)

    first = [[each] for _, each in zip(slots[:at_once], numbers, strict=False)]
    yield from run_concurrently(model.context.new_mailbox(), [partial(ask_some, some) for some in first])
    flows = min(at_once or total_of(slots) or number, number)  # all of them take from one iterator
    yield from run_concurrently(model.context.new_mailbox(), [partial(ask_some, numbers)] * flows)
