"""What a question of a row may use: the instance, within the tokens of the row, and the observations that it makes."""

import math
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from typing_extensions import Unpack

from lmstudio_integrations._support.secrets import redact, redact_members
from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.predictions.requests import History, PredictionParameters
from lmstudio_integrations.client.transport.concurrent_flows import MakeMailbox, run_concurrently
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioModelNotFoundError,
    LMStudioServerError,
)
from lmstudio_integrations.types.cards import Observation, RowName
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
"""Errors after which nothing more can be asked; the others are answers."""

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


class Reply(NamedTuple):
    """What came of a request.

    Attributes:
        result: The response.
        error: Why there is none.
        seconds: How long it took.
    """

    result: PredictionResult | None
    error: LMStudioServerError | None
    seconds: float

    @property
    def text(self) -> str:
        """The response, or the error, for `detail`."""
        return self.result.raw_content or self.result.content if self.result else str(self.error)


@dataclass(slots=True)
class Budget:
    """Tokens that may be used, and that were."""

    prompt: int
    predicted: int
    used_prompt: int = 0
    used_predicted: int = 0

    def take(self, predicted: int) -> None:
        """Check that a response of so many tokens may be requested.

        Raises:
            OutOfTokensError: If not.
        """
        if self.used_predicted + predicted > self.predicted or self.used_prompt >= self.prompt:
            raise OutOfTokensError

    def part(self, limits: "Budget") -> "Budget":
        """Return what a row may use of what is left."""
        prompt, predicted = self.prompt - self.used_prompt, self.predicted - self.used_predicted
        return Budget(min(limits.prompt, prompt), min(limits.predicted, predicted))

    def add(self, used: "Budget") -> None:
        """Count what a row has used."""
        self.used_prompt += used.used_prompt
        self.used_predicted += used.used_predicted


@dataclass(slots=True)
class Asking:
    """One measurement of a row.

    Attributes:
        model: The instance: a language model, or an embedding model for the rows of those.
        info: Its info.
        budget: The tokens that are left.
        repetition: How often the row was measured before.
        temperature: The temperature of the requests.
        may_load: Whether instances of its own may be loaded for a moment.
        drafts: The draft models to try.
        observations: What was observed.
        reasons_anyway: Whether the model was seen to reason although it was told not to.
    """

    model: Any
    info: ModelInstanceInfo
    budget: Budget
    repetition: int = 0
    temperature: float = 0.0
    may_load: bool = False
    drafts: Sequence[str] = ()
    observations: list[Observation] = field(default_factory=list[Observation])
    reasons_anyway: bool = False

    @property
    def llm(self) -> LanguageModel:
        assert isinstance(self.model, LanguageModel)
        return self.model

    @property
    def embedder(self) -> Embedder:
        """The embedding model."""
        assert isinstance(self.model, Embedder)
        return self.model

    @property
    def operation(self) -> Operation:
        """Makes requests that no method of the model makes."""
        return Operation(self.model.context)

    def vary(self, text: str) -> str:
        """Return a prompt for this repetition, with another greeting: the same one would only be answered the same."""
        return f"{GREETINGS[self.repetition % len(GREETINGS)]} {text}"

    # What was observed ------------------------------------------------------------------------------------------------

    def verdict(self, case: str, outcome: str, score: float | bool, detail: str = "") -> None:  # noqa: FBT001
        """Record whether something is as it should be."""
        shown = one_line(redact(redact_members(detail)))[:_DETAIL]
        self.observations.append(Observation(case=case, kind="verdict", outcome=outcome, score=score, detail=shown))

    def number(self, case: str, value: float, unit: str, *, more_is_better: bool = True) -> None:
        """Record a measured number; one that is not above 0 was not measured."""
        if not 0 < value < math.inf:
            return
        score = value if more_is_better else min(1 / value, sys.float_info.max)
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        self.observations.append(Observation(case=case, kind="number", outcome=f"{shown} {unit}", score=score))

    def fact(self, case: str, outcome: object, score: float = 0.0) -> None:
        """Record what does not depend on chance, such as a length; if more is better, with a score."""
        self.observations.append(Observation(case=case, kind="fact", outcome=str(outcome), score=score))

    # Requests ---------------------------------------------------------------------------------------------------------

    def respond(
        self, history: History, max_tokens: int, *, reasoning: bool = False, **parameters: Unpack[PredictionParameters]
    ) -> Flow[Reply]:
        """Return the response to a conversation, or why there is none.

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
        self.budget.take(max_tokens)
        settings = self._settings(max_tokens, parameters, enable_thinking=reasoning)
        reply = yield from self._predict(self.llm.prepare_response(history, settings), max_tokens)
        if reply.result is None or reasoning or self.reasons_anyway or not reply.result.reasoning_tokens:
            return reply
        self.reasons_anyway = True
        is_cut = reply.result.stats.stop_reason == "maxPredictedTokensReached" and max_tokens > FEW
        return (yield from self.respond(history, max_tokens, **parameters)) if is_cut else reply

    def complete(self, prompt: str, max_tokens: int, **parameters: Unpack[PredictionParameters]) -> Flow[Reply]:
        """Return the continuation of a text, without the chat template, or why there is none.

        Raises:
            OutOfTokensError: If the row has not so many tokens left.
        """
        self.budget.take(max_tokens)
        settings = self._settings(max_tokens, parameters)
        return (yield from self._predict(self.llm.prepare_completion(prompt, settings), max_tokens))

    def respond_at_once(
        self, prompts: Sequence[str], max_tokens: int, **parameters: Unpack[PredictionParameters]
    ) -> Flow[tuple[list[Reply], float]]:
        """Return the responses to several prompts at once, and how long all of them took.

        Args:
            prompts: The prompts.
            max_tokens: The most tokens of each response, reasoning included.
            parameters: See `PredictionParameters`.

        Raises:
            OutOfTokensError: If the row has not so many tokens left.
        """
        self.budget.take(max_tokens * len(prompts))
        replies: list[Reply] = []

        def work(prompt: str, make_mailbox: MakeMailbox) -> Flow[None]:
            model = self.llm.with_context(lambda context: context.with_mailboxes(make_mailbox))
            prediction = model.prepare_response(prompt, self._settings(max_tokens, parameters))
            replies.append((yield from self._predict(prediction, max_tokens)))

        began = time.perf_counter()
        yield from run_concurrently(self.llm.context, [partial(work, prompt) for prompt in prompts])
        return replies, time.perf_counter() - began

    def _settings(
        self, max_tokens: int, parameters: PredictionParameters, *, enable_thinking: bool = False
    ) -> PredictionParameters:
        own = LlmPredictionConfig(
            temperature=self.temperature,
            seed=SEED + self.repetition,
            max_tokens=max_tokens,
            enable_thinking=enable_thinking,
            context_overflow_policy="stopAtLimit",
        )
        config = parameters.get("config")
        return {**parameters, "config": own if config is None else own.merged(LlmPredictionConfig.parse(config))}

    def _predict(self, prediction: Prediction, max_tokens: int) -> Flow[Reply]:
        """Return the response; one that goes on far beyond its tokens is canceled."""
        began, received = time.perf_counter(), 0
        try:
            while (yield from prediction.advance()):
                fragments = [each for each in prediction.ready if isinstance(each, LlmPredictionFragment)]
                received += sum(each.tokens_count for each in fragments)
                prediction.ready.clear()
                if received > 2 * max_tokens + FEW:
                    prediction.cancel()
            result = prediction.result()
        except OF_THE_INSTANCE:
            raise
        except LMStudioServerError as error:
            return Reply(None, error, time.perf_counter() - began)
        self.budget.used_prompt += result.stats.prompt_tokens_count or 0
        self.budget.used_predicted += max(result.stats.predicted_tokens_count or 0, received)
        return Reply(result, None, time.perf_counter() - began)


Ask: TypeAlias = Callable[[Asking], Flow[None]]


class Case(NamedTuple):
    """A question of a row: it asks, and records what it observes, under its name or parts of it."""

    name: str
    ask: Ask

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
        kinds: The kinds of model that it can ask.
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
    kinds: frozenset[ModelKind] = frozenset({"llm"})
    missing: Callable[[ModelInstanceInfo], str | None] = lambda _info: None
    apart: bool = False
