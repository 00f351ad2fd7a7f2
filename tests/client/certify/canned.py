"""Rows of scripted models; and models whose responses are given, for what no emulated server does."""

from collections.abc import Callable, Iterable
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations import Client
from lmstudio_integrations.client.certify.examiner import Examiner, Row
from lmstudio_integrations.client.embeddings import Embedder, Vectors
from lmstudio_integrations.client.models.state import ModelState
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.transport.flows import Flow, run
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.cards import RowName


def row_of(name: RowName, *rules: dict[str, Any], key: str = "good", quick: bool = False, **fields: Any) -> lms.CardRow:
    """Return a row of the card of a scripted model."""
    with Emulator([{"key": key, "rules": rules, **fields}]) as server, Client(server.address) as client:
        return client.certify(key, rows=[name], quick=quick).row(name)


def response(
    content: str = "River.", *, prompt: int = 100, cached: int | None = None, thought: str = ""
) -> lms.PredictionResult:
    """Return a response to a prompt of so many tokens."""
    stats = {"stopReason": "eosFound", "promptTokensCount": prompt, "predictedTokensCount": 2}
    end, thoughts = lms.PredictionEnd(stats, {}, {}, {}), (lms.Thought(thought),) if thought else ()
    tokens = len(thought.split())
    return lms.PredictionResult(content, thought, end, cached_tokens=cached, reasoning_tokens=tokens, thoughts=thoughts)


class _Prediction:
    def __init__(self, result: lms.PredictionResult) -> None:
        self._result = result

    def advance(self) -> Flow[bool]:
        yield from ()
        return False

    def result(self) -> lms.PredictionResult:
        return self._result


class CannedModel(LanguageModel):
    """Gives the responses one by one, and the last one again and again.

    `history` is the last conversation, `limits` the most tokens of each response.
    """

    def __init__(self, responses: Iterable[lms.PredictionResult]) -> None:
        super().__init__(None, ModelState("llm", "canned"))  # type: ignore[arg-type]
        self.responses = list(responses)
        self.history: Any = None
        self.limits: list[int] = []

    def prepare_response(self, history: Any, parameters: Any) -> Any:
        self.history = history
        self.limits.append(parameters["config"].max_tokens)
        return _Prediction(self.responses.pop(0) if len(self.responses) > 1 else self.responses[0])


class CannedEmbedder(Embedder):
    """Gives the vector that a function returns."""

    def __init__(self, vector_of: Callable[[str], list[float]]) -> None:
        super().__init__(None, ModelState("embedding", "canned"))  # type: ignore[arg-type]
        self.vector_of = vector_of

    def vectors_of(self, texts: Any, *_: Any, **_others: Any) -> Flow[Vectors]:
        yield from ()
        return [self.vector_of(text) for text in texts]


def observed(
    row: Row, part: str, model: LanguageModel | Embedder, context_length: int = 512
) -> list[tuple[str, float]]:
    """Return the outcomes of a part of a row, with their scores."""
    info = lms.EmbeddingModelInstanceInfo.model_construct(context_length=context_length)
    asking = Examiner(row, model, info, 10**6, 10**6)
    for case in row.cases:
        if case.part == part:
            run(case.ask(asking))
    return [(each.outcome, each.score) for each in asking.observations]
