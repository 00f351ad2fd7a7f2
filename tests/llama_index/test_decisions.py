"""`LMStudioSelector` and `LMStudioEvaluator`, of language models and of decision models."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.base.base_selector import SelectorResult
from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation import BatchEvalRunner
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEvaluator, LMStudioSelector

RULES: list[dict[str, Any]] = [
    {"when": {"last": "boat(.|\\n)*A\\. 1\\. ferry"}, "then": [{"probabilities": {"A": 0.9, "B": 0.1}}]},
    {"when": {"last": "boat(.|\\n)*B\\. 1\\. ferry"}, "then": [{"probabilities": {"A": 0.3, "B": 0.7}}]},
    {"when": {"last": "dinner"}, "then": [{"probabilities": {"A": 0.5, "B": 0.5}}]},
    {"when": {"last": "noon"}, "then": [{"probabilities": {"yes": 0.8, "no": 0.2}}]},
    {"when": {"last": "midnight"}, "then": [{"probabilities": {"yes": 0.1, "no": 0.9}}]},
]
DECIDES: list[dict[str, Any]] = [{"then": [{"answers": {"choice": {"2. menu": 0.7, "1. ferry": 0.3}, "good": 0.75}}]}]
JUDGE: dict[str, Any] = {"key": "judge", "kind": "decision", "rule": DECIDES, "preload": True}
CHOICES = [ToolMetadata("timetables", "ferry"), ToolMetadata("menu of the restaurant", "menu")]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    models = [{"key": "chat", "rule": RULES, "preload": True}, JUDGE]
    with Emulator(models) as running:
        yield running.address


Select = Callable[..., SelectorResult]


@pytest.fixture(params=["sync", "async"])
def select(request: pytest.FixtureRequest, host: str) -> Select:
    def call(choices: Any, query: str, **settings: Any) -> SelectorResult:
        selector = LMStudioSelector(**{"model": "chat", "host": host, **settings})
        if request.param == "sync":
            return selector.select(choices, query)
        return asyncio.run(selector.aselect(choices, query))

    return call


def test_the_most_probable_choice_is_selected(select: Select) -> None:
    selected = select(CHOICES, "When does the last boat leave?")
    assert (selected.ind, selected.reason) == (0, "probability 0.80")
    assert select(["x", "y"], "Where is dinner?", instructions="Which one?").ind == 0
    assert select(CHOICES, "boat", model="judge").ind == 1
    with pytest.raises(LMStudioValueError, match="at least one choice"):
        select([], "boat")


class Fixed(CustomQueryEngine):
    """Answers with its name."""

    name: str

    def custom_query(self, query_str: str) -> str:
        return f"{self.name}: {query_str}"


def test_a_router_asks_the_selected_query_engine(host: str) -> None:
    tools = [QueryEngineTool(Fixed(name=str(metadata.name)), metadata) for metadata in CHOICES]
    selector = LMStudioSelector(model_name="chat", base_url=host)
    router = RouterQueryEngine(selector, tools, llm=LMStudio(model="chat", host=host))
    assert str(router.query("When does the last boat leave?")) == "ferry: When does the last boat leave?"
    assert str(asyncio.run(router.aquery("Is there a boat?"))) == "ferry: Is there a boat?"


def test_a_response_passes_if_yes_is_probable_enough(host: str) -> None:
    evaluator = LMStudioEvaluator(model="chat", host=host)
    contexts = ["The ferry leaves at twelve."]
    good = evaluator.evaluate("When?", "At noon.", contexts)
    assert (good.passing, good.query, good.response, good.contexts) == (True, "When?", "At noon.", contexts)
    assert good.score == pytest.approx(0.8)
    bad = asyncio.run(evaluator.aevaluate(response="At midnight.", contexts=contexts))
    assert not bad.passing
    assert bad.score == pytest.approx(0.1)
    strict = LMStudioEvaluator(model="chat", host=host, threshold=0.81)
    response = Response("At noon.", [NodeWithScore(node=TextNode(text=contexts[0]))])
    assert not strict.evaluate_response("When?", response).passing
    assert LMStudioEvaluator(model="judge", host=host).evaluate(response="x").score == 0.75
    with pytest.raises(LMStudioValueError, match="a query, a response or contexts"):
        evaluator.evaluate()
    with pytest.raises(ValueError, match="threshold"):
        LMStudioEvaluator(threshold=2)


@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")  # core's own
async def test_the_runner_of_llama_index_evaluates_many(host: str) -> None:
    runner = BatchEvalRunner({"faithful": LMStudioEvaluator(model="chat", host=host)}, workers=2)
    responses = ["At noon.", "At midnight."]
    found = await runner.aevaluate_response_strs(["When?"] * 2, responses, [["At twelve."]] * 2)
    assert [each.passing for each in found["faithful"]] == [True, False]


@pytest.mark.parametrize("kind", [LMStudioSelector, LMStudioEvaluator])
def test_copies_and_prompts(kind: Any, host: str) -> None:
    made = kind(model="chat", host=host, instructions="Is it?")
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.get_prompts() == {}


@pytest.mark.slow
def test_the_bundled_model_selects_and_evaluates() -> None:
    with Emulator() as server:
        settings: Any = {"model": "smollm2-135m-instruct", "host": server.address}
        assert LMStudioSelector(**settings).select(CHOICES, "When does the boat leave?").ind in {0, 1}
        found = LMStudioEvaluator(**settings).evaluate(response="At noon.", contexts=["It leaves at noon."])
    assert found.score is not None
    assert 0 < found.score < 1
