"""`LMStudioSelector` and `LMStudioEvaluator`, of language models and of decision models."""

import asyncio
import math
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

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioPredictionError, LMStudioUnsupportedError, LMStudioValueError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEvaluator, LMStudioSelector
from lmstudio_integrations.llama_index.decisions import LMStudioEvaluation, LMStudioSelection

REST = {f"w{number}": 0.0998 for number in range(10)}
RULES: list[dict[str, Any]] = [
    {"when": {"last": "boat(.|\\n)*A\\. 1\\. ferry"}, "then": [{"probabilities": {"A": 0.9, "B": 0.1}}]},
    {"when": {"last": "boat(.|\\n)*B\\. 1\\. ferry"}, "then": [{"probabilities": {"A": 0.3, "B": 0.7}}]},
    {"when": {"last": "dinner"}, "then": [{"probabilities": {"A": 0.5, "B": 0.5}}]},
    {"when": {"last": "noon"}, "then": [{"probabilities": {"yes": 0.8, "no": 0.2}}]},
    {"when": {"last": "midnight"}, "then": [{"probabilities": {"yes": 0.1, "no": 0.9}}]},
    {"when": {"last": "the tea(.|\\n)*letter"}, "then": [{"probabilities": {"A": 0.0015, "B": 0.0005, **REST}}]},
    {"when": {"last": "the tea"}, "then": [{"probabilities": {"yes": 0.0015, "no": 0.0005, **REST}}]},
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


def test_a_selection_has_the_numbers(select: Select) -> None:
    selected = select(CHOICES, "When does the last boat leave?")
    (selection,) = selected.selections
    assert isinstance(selection, LMStudioSelection)
    assert selection.probability == pytest.approx(0.8)
    assert selection.probabilities == pytest.approx({0: 0.8, 1: 0.2})
    assert selection.spread == pytest.approx(0.2)
    assert selection.unseen == pytest.approx(0, abs=1e-6)
    (judged,) = select(CHOICES, "boat", model="judge").selections
    assert isinstance(judged, LMStudioSelection)
    assert (judged.index, judged.probability, judged.spread, judged.unseen) == (1, 0.7, None, 0)


def test_the_index_is_that_of_the_choices_asked(select: Select, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may list the most probable first."""

    async def respond(*_: object) -> Any:
        answer = {"type": "choice", "choice": "2. menu", "confidence": 0.7}
        return {"answers": {"choice": {**answer, "probabilities": {"2. menu": 0.7, "1. ferry": 0.3}}}}

    monkeypatch.setattr("lmstudio_integrations.client.predictions.decisions.systemone.post", respond)
    (selection,) = select(CHOICES, "boat", model="judge").selections
    assert isinstance(selection, LMStudioSelection)
    assert (selection.index, selection.probabilities) == (1, {0: 0.3, 1: 0.7})


SURE = lms.Calibration(threshold=0.8, kept=9, errors=0, expected_error_rate=0.1)


@pytest.mark.parametrize("threshold", [0.81, lms.Calibration(math.inf, 0, 0, 0.5)])
def test_a_choice_that_is_not_probable_enough_is_the_default_or_an_error(select: Select, threshold: Any) -> None:
    query = "When does the last boat leave?"
    (selection,) = select(CHOICES, query, threshold=threshold, default=1).selections
    assert isinstance(selection, LMStudioSelection)
    assert (selection.index, selection.choice) == (1, 0)
    assert selection.probability == pytest.approx(0.2)
    assert (
        "the default: 'chat' is not sure enough: its most probable answer has a probability of 0.80" in selection.reason
    )
    with pytest.raises(
        LMStudioPredictionError, match=r"the threshold is .*; lower threshold, use a larger model, or set default"
    ):
        select(CHOICES, query, threshold=threshold)
    assert select(CHOICES, query, threshold=0.79).ind == select(CHOICES, query, threshold=SURE, default=1).ind == 0
    with pytest.raises(LMStudioValueError, match="default=2 is no index of 2 choices"):
        select(CHOICES, query, default=2)


def test_a_choice_that_the_model_would_not_say_is_the_default_or_an_error(select: Select) -> None:
    (selection,) = select(CHOICES, "What is the tea?", default=1).selections
    assert isinstance(selection, LMStudioSelection)
    assert selection.index == 1
    assert selection.unseen == pytest.approx(0.998)
    assert "the default: 'chat' would say something else than an answer, to which it gives 0.2%" in selection.reason
    with pytest.raises(LMStudioUnsupportedError, match=r"something else than an answer.*, or set default"):
        select(CHOICES, "What is the tea?")


@pytest.mark.parametrize("rule", [{"then": "This is it."}, {"then": [{"probabilities": {"Well": 1.0}}]}])
def test_a_model_that_says_none_of_the_answers_gives_the_default(select: Select, rule: Any) -> None:
    with Emulator([{"key": "talks", "rule": [rule]}]) as server:
        settings: Any = {"model": "talks", "host": server.address}
        assert select(CHOICES, "boat", **settings, default=1).ind == 1
        with pytest.raises(LMStudioUnsupportedError, match=r"something else than an answer, to which it gives 0\.0%"):
            select(CHOICES, "boat", **settings)
        found = LMStudioEvaluator(**settings).evaluate(response="boat")
        assert (found.passing, found.score, found.invalid_result) == (None, None, True)
        assert LMStudioEvaluator(**settings, default=False).evaluate(response="boat").passing is False


def test_selections_calibrate_a_selector(select: Select) -> None:
    selections = [select(CHOICES, "When does the last boat leave?").selections[0] for _ in range(2)] * 4
    calibration = lms.calibrate(selections, [0] * 8)
    assert calibration.threshold == pytest.approx(0.8)
    assert calibration.kept == 8
    assert select(CHOICES, "Is there a boat?", threshold=calibration).ind == 0
    with pytest.raises(LMStudioValueError, match=r"right\[0\] must be the right one of 0, 1; got 'ferry'"):
        lms.calibrate(selections, ["ferry"] * 8)


@pytest.mark.parametrize("kind", [LMStudioSelector, LMStudioEvaluator])
@pytest.mark.parametrize("threshold", [2, -0.1, "a", True, {}, math.nan])
def test_a_threshold_is_a_probability_or_a_calibration(kind: Any, threshold: Any) -> None:
    with pytest.raises(ValueError, match="must be a number from 0 to 1, or what calibrate returned"):
        kind(threshold=threshold)
    made = kind(threshold=lms.Calibration(math.inf, 0, 0, 0.5))
    assert kind.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("kind", [LMStudioSelector, LMStudioEvaluator])
@pytest.mark.parametrize("key", ["chat", "judge"])
def test_the_model_is_loaded_so_that_no_other_model_evicts_it(kind: Any, key: str) -> None:
    with Emulator([{"key": "chat"}, {"key": "judge", "kind": "decision"}, {"key": "answers"}]) as server:
        made = kind(model=key, host=server.address)
        for _ in range(2):
            LMStudio(model="answers", host=server.address).complete("Hi")
            if kind is LMStudioSelector:
                made.select(["boats", "menus"], "boat")
            else:
                made.evaluate(response="boat")
        assert [(load.key, load.mode) for load in server.loads if load.key == key] == [(key, "explicit")]
        assert len([load for load in server.loads if load.key == "answers"]) == 1


class Fixed(CustomQueryEngine):
    """Answers with its name."""

    name: str

    def custom_query(self, query_str: str) -> str:
        return f"{self.name}: {query_str}"


def test_a_router_asks_the_selected_query_engine(host: str) -> None:
    tools = [QueryEngineTool(Fixed(name=str(metadata.name)), metadata) for metadata in CHOICES]
    selector = LMStudioSelector(model="chat", host=host)
    router = RouterQueryEngine(selector, tools, llm=LMStudio(model="chat", host=host))
    assert str(router.query("When does the last boat leave?")) == "ferry: When does the last boat leave?"
    assert str(asyncio.run(router.aquery("Is there a boat?"))) == "ferry: Is there a boat?"


def ferry(query: str) -> str:
    """Look up when a ferry leaves.

    Args:
        query: The pier, and the day.
    """
    return f"ferry: {query}"


def menu(query: str) -> str:
    """Say what the restaurant serves.

    A. A starter.
    B. Dinner.
    """
    return f"menu: {query}"


def test_a_router_chooses_among_docstrings_on_a_scripted_model_without_rules() -> None:
    tools = [
        QueryEngineTool(Fixed(name=each.__name__), ToolMetadata(str(each.__doc__), each.__name__))
        for each in (ferry, menu)
    ]
    with Emulator([{"key": "plain"}]) as server:
        settings: Any = {"model": "plain", "host": server.address}
        router = RouterQueryEngine(LMStudioSelector(**settings), tools, llm=LMStudio(**settings))
        assert str(router.query("From which pier does it leave?")).startswith("ferry")
        response = router.query("What dinner does the restaurant serve?")
    assert str(response).startswith("menu")
    assert response.metadata is not None
    assert response.metadata["selector_result"].selections[0].probability > 0.5


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


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"response": 5}, "response=5: Input should be a valid string"),
        ({"contexts": "one text"}, "contexts='one text': "),
        ({"query": ["?"]}, r"query=\['\?'\]: Input should be a valid string"),
    ],
)
def test_what_cannot_be_judged_is_named(host: str, given: Any, text: str) -> None:
    evaluator = LMStudioEvaluator(model="chat", host=host)
    with pytest.raises(LMStudioValueError, match=text):
        evaluator.evaluate(**given)
    with pytest.raises(LMStudioValueError, match=text):
        asyncio.run(evaluator.aevaluate(**given))


@pytest.mark.parametrize("is_async", [False, True])
def test_an_evaluation_has_the_numbers(host: str, is_async: bool) -> None:
    def judge(response: str, **settings: Any) -> Any:
        evaluator = LMStudioEvaluator(**{"model": "chat", "host": host, **settings})
        found = (
            asyncio.run(evaluator.aevaluate(response=response)) if is_async else evaluator.evaluate(response=response)
        )
        assert isinstance(found, LMStudioEvaluation)
        return found

    good = judge("At noon.")
    assert (good.passing, good.invalid_result, good.feedback) == (True, False, "the probability of yes is 0.80")
    assert (good.noul, good.spread, good.unseen) == (good.score, None, pytest.approx(0, abs=1e-6))
    sure, unsure = judge("At midnight.", threshold=SURE), judge("At noon.", threshold=lms.Calibration(0.9, 9, 0, 0.1))
    assert (sure.passing, sure.score) == (False, pytest.approx(0.1)), "it is sure that it is wrong"
    assert (unsure.passing, unsure.invalid_result, unsure.score) == (None, True, pytest.approx(0.8))
    assert "'chat' is not sure enough" in str(unsure.invalid_reason)
    assert unsure.feedback == unsure.invalid_reason, "there is no default"
    decided = judge("At noon.", threshold=lms.Calibration(0.9, 9, 0, 0.1), default=False)
    assert (decided.passing, decided.invalid_result, decided.invalid_reason) == (False, False, None)
    assert "the default: 'chat' is not sure enough" in str(decided.feedback)
    sliver = judge("the tea")
    assert (sliver.passing, sliver.score, sliver.invalid_result) == (None, None, True)
    assert sliver.unseen == pytest.approx(0.998)
    assert "'chat' would say something else than an answer" in str(sliver.invalid_reason)
    assert judge("the tea", default=True).passing is True
    assert lms.calibrate([good] * 8, [True] * 8).keeps(good)
    assert lms.calibrate([good] * 8, [False] * 8).threshold == math.inf


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
