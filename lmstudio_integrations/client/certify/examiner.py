"""What a question of a row may use: the instance, within the tokens of the row, and the observations that it makes."""

import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from typing_extensions import Unpack

from lmstudio_integrations._support.secrets import redact_received
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.plan import History, PredictionParameters
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.transport.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioAuthenticationError, LMStudioModelNotFoundError
from lmstudio_integrations.types.cards import Kind, Observation, RowName, failures_of, outcomes, share_text
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.models import ModelInstanceInfo
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionResult

SEED = 20261126
THOUGHT = 256
"""Tokens that a response may have in addition if the model cannot be kept from reasoning."""

FEW = 8
"""Tokens of a response whose content does not matter."""

GREETINGS = ("Hello.", "Hi.", "Good day.", "Hello there.", "Good morning.", "Hi there.")
"""What prompts begin with, another one in each repetition."""

_DETAIL = 160

OF_THE_INSTANCE = (LMStudioModelNotFoundError, LMStudioAuthenticationError)
"""Errors after which nothing more can be asked; the others of a server are answers."""

_WORDS = (
    "apple arm ball bank bear bell bird boat book bottle box bridge bus camp car cat chair city cloud coat coffee corn "
    "dance desk dog door egg farm fish flower forest garden glass gold hand hill horse house ice island key king lake "
    "lamp leaf letter lion market milk moon mountain paper park plate queen rain river road rock rose salt school sea"
)


def random_words(count: int) -> str:
    """Return a text of so many words, of at least as many tokens and hardly more. No cache has it."""
    words = _WORDS.split()
    return " ".join(secrets.choice(words) for _ in range(count))


class OutOfTokensError(Exception):
    """The row has used up its tokens; what is left of it is not asked."""


@dataclass(slots=True)
class Examiner:
    """One measurement of a row.

    Attributes:
        row: The row.
        model: The instance, of a kind that the row can ask.
        info: Its info.
        most_prompt: The most tokens of all prompts.
        most_predicted: The most tokens of all responses.
        repetition: How often the row was measured before.
        drafts: The draft models to try.
        reasons_anyway: Whether the model was seen to reason although it was told not to.
        observations: What was observed.
        prompt_tokens: The tokens of all prompts so far.
        predicted_tokens: The tokens of all responses so far.
    """

    row: "Row"
    model: Model
    info: ModelInstanceInfo
    most_prompt: int
    most_predicted: int
    repetition: int = 0
    drafts: Sequence[str] = ()
    reasons_anyway: bool = False
    observations: list[Observation] = field(default_factory=list[Observation])
    prompt_tokens: int = 0
    predicted_tokens: int = 0

    @property
    def llm(self) -> LanguageModel:
        assert isinstance(self.model, LanguageModel)
        return self.model

    @property
    def embedder(self) -> Embedder:
        """The embedding model."""
        assert isinstance(self.model, Embedder)
        return self.model

    def vary(self, text: str) -> str:
        """Return a prompt for this repetition, with another greeting: the same one would only be answered the same."""
        return f"{GREETINGS[self.repetition % len(GREETINGS)]} {text}"

    # What was observed ------------------------------------------------------------------------------------------------

    def verdict(self, case: str, outcome: str, detail: str = "") -> None:
        """Record what came of a question; the row says what that counts."""
        self._observe("verdict", case, outcome, self.row.scores.get(outcome, 0.0), detail)

    def judged(self, case: str, outcome: str, result: PredictionResult) -> None:
        """Record what a response is, with its text if it is not as it should be."""
        is_good = self.row.scores.get(outcome) == 1
        self.verdict(case, outcome, "" if is_good else result.raw_content or result.content)

    def failure(self, case: str, outcome: str, detail: object) -> None:
        """Record that a question could not be asked."""
        self._observe("verdict", case, outcome, 0.0, str(detail))

    def number(self, case: str, value: float, unit: str, *, more_is_better: bool = True) -> None:
        """Record a measured number; one that is not above 0 was not measured."""
        if 0 < value < math.inf:
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            score = value if more_is_better else min(1 / value, sys.float_info.max)
            self._observe("number", case, f"{shown} {unit}", score)

    def fact(self, case: str, outcome: object, score: float = 0.0) -> None:
        """Record what does not depend on chance, such as a length; if more is better, with a score."""
        self._observe("fact", case, str(outcome), score)

    def _observe(self, kind: Kind, case: str, outcome: str, score: float, detail: str = "") -> None:
        shown = one_line(redact_received(detail))[:_DETAIL]
        self.observations.append(Observation(case=case, kind=kind, outcome=outcome, score=score, detail=shown))

    # Requests ---------------------------------------------------------------------------------------------------------

    def take(self, predicted: int) -> None:
        """Check that a response of so many tokens may be requested.

        Raises:
            OutOfTokensError: If not.
        """
        if self.predicted_tokens + predicted > self.most_predicted or self.prompt_tokens >= self.most_prompt:
            raise OutOfTokensError

    def respond(
        self, history: History, max_tokens: int, *, reasoning: bool = False, **parameters: Unpack[PredictionParameters]
    ) -> Flow[PredictionResult]:
        """Return the response to a conversation.

        Args:
            history: The conversation.
            max_tokens: The most tokens of the response; if that is more than `FEW`, a model that reasons anyway gets
                more.
            reasoning: Whether the model may reason.
            parameters: See `PredictionParameters`.

        Raises:
            OutOfTokensError: If the row has not so many tokens left.
        """
        if self.reasons_anyway and not reasoning and max_tokens > FEW:
            max_tokens += THOUGHT
        self.take(max_tokens)
        settings = self._settings(max_tokens, parameters, enable_thinking=reasoning)
        result = yield from self._predict(self.llm.prepare_response(history, settings), max_tokens)
        if reasoning or self.reasons_anyway or not result.reasoning_tokens:
            return result
        self.reasons_anyway = True
        is_cut = result.stats.stop_reason == "maxPredictedTokensReached" and max_tokens > FEW
        return (yield from self.respond(history, max_tokens, **parameters)) if is_cut else result

    def complete(self, prompt: str, max_tokens: int, **settings: Any) -> Flow[PredictionResult]:
        """Return the continuation of a text, without the chat template.

        Raises:
            OutOfTokensError: If the row has not so many tokens left.
        """
        self.take(max_tokens)
        parameters = self._settings(max_tokens, {"config": LlmPredictionConfig(**settings)})
        return (yield from self._predict(self.llm.prepare_completion(prompt, parameters), max_tokens))

    def respond_at_once(
        self, prompts: Sequence[str], max_tokens: int, **parameters: Unpack[PredictionParameters]
    ) -> Flow[tuple[list[PredictionResult], float]]:
        """Return the responses to several prompts at once, and how many seconds all of them took.

        Args:
            prompts: The prompts.
            max_tokens: The most tokens of each response, reasoning included.
            parameters: See `PredictionParameters`.

        Raises:
            OutOfTokensError: If the row has not so many tokens left.
        """
        self.take(max_tokens * len(prompts))
        results: list[PredictionResult] = []

        def work(prompt: str, make_mailbox: MakeMailbox) -> Flow[None]:
            model = self.llm.with_context(lambda context: context.with_mailboxes(make_mailbox))
            prediction = model.prepare_response(prompt, self._settings(max_tokens, parameters))
            results.append((yield from self._predict(prediction, max_tokens)))

        began = time.perf_counter()
        yield from run_concurrently(self.model.context, [partial(work, prompt) for prompt in prompts])
        return results, time.perf_counter() - began

    def _settings(
        self, max_tokens: int, parameters: PredictionParameters, *, enable_thinking: bool = False
    ) -> PredictionParameters:
        own = LlmPredictionConfig(
            temperature=0.0,
            seed=SEED + self.repetition,
            max_tokens=max_tokens,
            enable_thinking=enable_thinking,
            context_overflow_policy="stopAtLimit",
        )
        config = parameters.get("config")
        return {**parameters, "config": own if config is None else own.merged(LlmPredictionConfig.parse(config))}

    def _predict(self, prediction: Prediction, max_tokens: int) -> Flow[PredictionResult]:
        """Return the response; one that goes on far beyond its tokens is canceled."""
        received = 0
        while (yield from prediction.advance()):
            received += sum(each.tokens_count for each in prediction.ready if isinstance(each, LlmPredictionFragment))
            prediction.ready.clear()
            if received > 2 * max_tokens + FEW:
                prediction.cancel()
        result = prediction.result()
        self.prompt_tokens += result.stats.prompt_tokens_count or 0
        self.predicted_tokens += max(result.stats.predicted_tokens_count or 0, received)
        return result


class Case(NamedTuple):
    """A question of a row: it asks, and records what it observes, under its name or parts of it.

    Attributes:
        name: Its name.
        ask: Asks it.
        verdicts: How many verdicts of its name it records; if the server rejects it, so many are failures.
    """

    name: str
    ask: Callable[[Examiner], Flow[None]]
    verdicts: int = 1

    @property
    def part(self) -> str:
        """The part of the row that its observations belong to, see `Observation.part`."""
        return self.name.partition("/")[0]


class Summary(NamedTuple):
    """A row in one line, and what to do because of it."""

    text: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the card.

    Attributes:
        name: Its name.
        question: What it answers, in one sentence.
        anchor: The place in docs/protocol.md that it concerns.
        cases: Its questions; every sixth one is asked if it must be quick.
        prompt_tokens: The most tokens of all of its prompts.
        predicted_tokens: The most tokens of all of its responses.
        summarize: Makes its line of the card from what was observed.
        scores: What the outcomes of its verdicts count that are as they should be, or nearly.
        kinds: The kinds of models that it can ask.
        missing: Returns why a model cannot be asked; `None` if it can.
        apart: Whether its parts are compared on their own, not as a whole.
    """

    name: RowName
    question: str
    anchor: str
    cases: Sequence[Case]
    prompt_tokens: int
    predicted_tokens: int
    summarize: Callable[[Sequence[Observation]], Summary]
    scores: Mapping[str, float]
    kinds: tuple[ModelKind, ...] = ("llm",)
    missing: Callable[[ModelInstanceInfo], str | None] = lambda _info: None
    apart: bool = False


def successes(verdicts: Sequence[Observation], adjective: str) -> str:
    """Return how many verdicts are as they should be, and what the others are: `37 of 40 right; no call 3`."""
    failures = failures_of(verdicts)
    return f"{share_text(verdicts)} {adjective}" + (f"; {outcomes(failures)}" if failures else "")


def most_common(advice: Mapping[str, str], observations: Sequence[Observation]) -> str | None:
    """Return the advice for what most failures are."""
    failures = [each.outcome for each in failures_of(observations)]
    return advice.get(max(failures, key=failures.count)) if failures else None
