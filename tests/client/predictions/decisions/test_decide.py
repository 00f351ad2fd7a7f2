"""`decide`: typed questions about a state, answered by the first token of a language model."""

from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.predictions.decisions.states import state_of, state_text
from lmstudio_integrations.emulator import Emulator

RULES: list[dict[str, Any]] = [
    {"when": {"last": "refund\\?"}, "then": [{"probabilities": {"yes": 0.6, "Yes": 0.2, "no": 0.2}}]},
    {"when": {"last": "A\\. billing"}, "then": [{"probabilities": {"A": 0.9, "B": 0.06, "C": 0.04}}]},
    {"when": {"last": "B\\. billing"}, "then": [{"probabilities": {"A": 0.3, "B": 0.5, "C": 0.2}}]},
    {"when": {"last": "C\\. billing"}, "then": [{"probabilities": {"A": 0.3, "B": 0.3, "C": 0.4}}]},
    {"when": {"last": "A\\. calm"}, "then": [{"probabilities": {"A": 0.25, "B": 0.75}}]},
    {"when": {"last": "B\\. calm"}, "then": [{"probabilities": {"A": 0.75, "B": 0.25}}]},
    {"when": {"last": "mumble"}, "then": [{"probabilities": {"Well": 1.0}}]},
]
REFUND = lms.Noul(instructions="Is it a refund?", criteria=lms.NoulCriteria(true="money back"))
TEAM: dict[str, Any] = {
    "type": "choice",
    "instructions": "Which team?",
    "criteria": {"billing": "money", "support": None, "sales": {"sells": "things"}},
}
ANGER = lms.Score(instructions="How angry?", criteria=("calm", "angry"))
STATE = "Give me my money back"


@pytest.fixture
def server() -> Iterator[Emulator]:
    with Emulator([{"key": "chat", "rule": RULES, "slots": 2, "context_length": 300}]) as running:
        yield running


@pytest.fixture
async def model(client: Any) -> Any:
    return await client.llm.model("chat")


async def test_each_question_gets_the_answer_of_its_type(model: Any, server: Emulator) -> None:
    progress: list[float] = []
    questions = {"refund": REFUND, "team": TEAM, "__proto__": ANGER}
    decision = await model.decide(STATE, questions, on_progress=progress.append)
    assert decision.model == "chat"
    assert list(decision.answers) == list(questions)
    refund, team, anger = decision.answers.values()
    assert (refund.type, refund.noul, refund.unseen) == ("noul", pytest.approx(0.8), pytest.approx(0))
    # Billing has the letter A, then the letter B.
    assert team.probabilities == pytest.approx({"billing": 0.7, "support": 0.13, "sales": 0.17}, abs=1e-6)
    assert (team.choice, team.confidence) == ("billing", team.probabilities["billing"])
    assert team.spread == pytest.approx(0.4)
    assert anger.probabilities == pytest.approx({"0": 0.25, "1": 0.75})
    assert (anger.score, anger.spread) == (pytest.approx(0.75), pytest.approx(0))
    assert anger.legend == {"0": "calm", "1": "angry"}
    assert progress == [number / 5 for number in range(1, 6)]
    assert decision.output_tokens == len(server.predictions) == 5
    assert decision.input_tokens == sum(each.stats["promptTokensCount"] for each in server.predictions)


async def test_all_prompts_begin_with_the_state_and_one_is_asked_ahead(model: Any, server: Emulator) -> None:
    await model.decide(f"{STATE} <|im_end|>", {"team": TEAM, "refund": REFUND}, permutations=3)
    prompts = [str(each.prompt) for each in server.predictions]
    assert len(prompts) == 4
    assert all("Give me my money back < |im_end|>\n\nQuestion: " in each for each in prompts)
    assert prompts[0].count("Which team?\nA. billing: money\nB. support\nC. sales: {") == 1
    assert sum("yes: money back\nAnswer with one word" in each for each in prompts) == 1


@pytest.mark.parametrize("permutations", [2, 3, 99])
async def test_two_orders_never_differ_by_more_than_the_spread(model: Any, permutations: int) -> None:
    answer = (await model.decide(STATE, {"team": TEAM}, permutations=permutations)).answers["team"]
    by_order = [
        (await model.decide(STATE, {"team": {**TEAM, "criteria": dict(order)}}, permutations=1)).answers["team"]
        for order in (
            list(TEAM["criteria"].items())[shift:] + list(TEAM["criteria"].items())[:shift]
            for shift in range(3 if permutations > 2 else 1)
        )
    ]
    for each in by_order:
        for label, probability in each.probabilities.items():
            assert abs(probability - answer.probabilities[label]) <= answer.spread + 1e-9


async def test_what_the_server_does_not_report_is_bounded(client: Any) -> None:
    rest = {f"w{number}": 0.004 for number in range(150)}
    rule = {"then": [{"probabilities": {"yes": 0.3, "no": 0.1, **rest}}]}
    with Emulator([{"key": "vague", "rule": [rule]}]) as server:
        async with lms.AsyncClient(server.address) as own:
            answer: Any = (await (await own.llm.model("vague")).decide(STATE, {"a": REFUND})).answers["a"]
        assert [each.config["logProbs"] for each in server.predictions] == [10, 100]
    assert answer.noul == pytest.approx(0.75)
    assert 0.05 < answer.unseen < 0.06, "six spellings of 0.004 each, of 0.4"


async def answer_of(rule: dict[str, Any], question: Any, **parameters: Any) -> Any:
    """Return how a model with one rule answers a question."""
    with Emulator([{"key": "vague", "rule": [rule]}]) as server:
        async with lms.AsyncClient(server.address) as client:
            decision = await (await client.llm.model("vague")).decide(STATE, {"a": question}, **parameters)
    return decision.answers["a"]


REST = {f"w{number}": 0.0998 for number in range(10)}


async def test_an_answer_made_of_a_sliver_of_the_probability_says_so() -> None:
    sliver = await answer_of({"then": [{"probabilities": {"yes": 0.0015, "no": 0.0005, **REST}}]}, REFUND)
    assert (sliver.noul, sliver.unseen) == (pytest.approx(0.75), pytest.approx(0.998))
    letters = {"A": 0.03, "B": 0.01, "C": 0.01, **REST}
    assert (await answer_of({"then": [{"probabilities": letters}]}, TEAM)).unseen == pytest.approx(0.95)
    enough = await answer_of({"then": [{"probabilities": {"yes": 0.1, "no": 0.1, "Well": 0.8}}]}, REFUND)
    assert (enough.noul, enough.unseen) == (pytest.approx(0.5), pytest.approx(0, abs=1e-6))


async def test_a_text_is_no_letter() -> None:
    """Its other tokens have the article " a", which is not the letter."""
    with pytest.raises(lms.LMStudioUnsupportedError, match="with none of A, B, C"):
        await answer_of({"then": "This is it."}, TEAM)
    letters = {" a": 0.5, "A": 0.2, " A": 0.1, "B": 0.1, "C": 0.1}
    answer = await answer_of({"then": [{"probabilities": letters}]}, TEAM, permutations=1)
    assert answer.probabilities == pytest.approx({"billing": 0.6, "support": 0.2, "sales": 0.2})


async def test_one_order_has_no_spread(model: Any) -> None:
    answers = (await model.decide(STATE, {"refund": REFUND, "team": TEAM}, permutations=1)).answers
    assert [each.spread for each in answers.values()] == [None, None]


@pytest.mark.parametrize(
    ("state", "questions", "error", "text"),
    [
        (
            STATE,
            {"a": {**TEAM, "instructions": "mumble"}, "b": REFUND},
            lms.LMStudioUnsupportedError,
            "none of A, B, C",
        ),
        ("word " * 400, {"a": REFUND}, lms.LMStudioContextOverflowError, "take 4.* of 300 tokens; shorten the state"),
        ("  ", {"a": REFUND}, lms.LMStudioValueError, "the state is empty"),
        (STATE, {}, lms.LMStudioValueError, "questions must be"),
        (
            STATE,
            {"a": {**TEAM, "criteria": dict.fromkeys("abcdefghijklmnopqrstuvwxyz?")}},
            lms.LMStudioValueError,
            "27 options",
        ),
        (
            STATE,
            {"a": {"type": "score", "instructions": "?", "criteria": ["x"]}},
            lms.LMStudioValueError,
            "a: criteria must",
        ),
    ],
)
async def test_what_cannot_be_decided_is_one_clear_error(
    model: Any, state: Any, questions: Any, error: type[Exception], text: str
) -> None:
    if "mumble" in str(questions):
        questions["a"]["criteria"] = {"x": None, "y": None, "z": None}
    with pytest.raises(error, match=text):
        await model.decide(state, questions)


async def test_an_unknown_argument_is_an_error(model: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="permutation"):
        await model.decide(STATE, {"a": REFUND}, permutation=2)


CONVERSATION = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": [{"type": "text", "text": "Yes?"}]},
]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (CONVERSATION, "user: Hi\nassistant: Yes?"),
        ({"messages": CONVERSATION[:1]}, "user: Hi"),
        ({"messages": 3, "b": "é"}, '{"messages": 3, "b": "é"}'),
        ([1, None], "[1, null]"),
    ],
)
def test_a_state_is_text(state: Any, text: str) -> None:
    assert state_text(state_of(state)) == text


async def test_a_state_with_an_image_is_rejected(model: Any) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with pytest.raises(lms.LMStudioValueError, match="of the type 'image_url'"):
        await model.decide([{"role": "user", "content": parts}], {"refund": REFUND})
