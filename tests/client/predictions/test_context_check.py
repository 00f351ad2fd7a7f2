"""When a prompt is counted again, and from how many tokens on a loss is noticed: the edges of the rule."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.entries import context_check
from lmstudio_integrations.client.predictions.entries.context_check import ContextCheck
from lmstudio_integrations.client.predictions.middleware import Ask
from tests.client.predictions.middlewares import plan_with

LIMIT = 1000
NO_TOOLS = len(dumps([]))


def request_of(size: int, policy: str | None = None) -> dict[str, Any]:
    """Return a request that counts as this many bytes; most of them are of characters of three bytes."""
    fields = [] if policy is None else [{"key": "llm.prediction.contextOverflowPolicy", "value": policy}]
    stack = {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}
    rest = size - NO_TOOLS - len(dumps(_messages("")))
    text = "道" * (rest // 3) + "a" * (rest % 3)
    return {"modelSpecifier": {}, "history": {"messages": _messages(text)}, "predictionConfigStack": stack}


def _messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


Check = Callable[..., tuple[bool, int | None]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a prediction; return whether the prompt was counted, and what is lost."""

    def check(
        request: Any,
        read: int | None,
        used: int = 0,
        *,
        is_empty: bool = False,
        written: int = 0,
        received: Sequence[lms.PredictionEvent] = (lms.LlmPredictionFragment("Yes"),),
    ) -> tuple[bool, int | None]:
        counted: list[int] = []

        def count(*_: Any) -> Any:
            counted.append(used)
            yield from ()
            return used

        monkeypatch.setattr(context_check, "_count", count)
        ask = Ask()
        ask.operation = cast("Any", None)  # only the count uses it
        ask.instance, ask.parameter = Instance("m"), request
        ask.raw.add_all([] if is_empty else [*received])
        end = lms.PredictionEnd(
            {"promptTokensCount": read, "predictedTokensCount": written},
            {"contextLength": LIMIT, "modelKey": "m"},
            {},
            {},
        )
        flow: Any = ContextCheck(plan_with()).finish([], end, ask)
        dropped = run(flow)[1].stats.get("droppedTokens")
        return bool(counted), dropped

    return check


@pytest.mark.parametrize(
    ("size", "read", "is_empty", "policy", "is_counted"),
    [
        (1500, 900, False, "stopAtLimit", False),  # half of the window
        (1501, 900, False, "stopAtLimit", True),  # nine tenths of the window
        (1501, 899, False, "stopAtLimit", False),
        (1501, 250, False, "stopAtLimit", True),  # a sixth of the bytes
        (1501, 251, False, "stopAtLimit", False),
        (1501, 600, True, "stopAtLimit", True),
        (1500, 0, True, "stopAtLimit", False),
        (30_000, None, False, "stopAtLimit", True),
        (1501, 600, False, "rollingWindow", True),  # a server that may drop messages may leave room
        (1501, 600, False, None, True),
        (1500, 600, False, None, False),
    ],
)
def test_a_prompt_is_counted_again_only_if_it_may_have_been_cut(
    check: Check, size: int, read: int | None, is_empty: bool, policy: str | None, is_counted: bool
) -> None:
    assert check(request_of(size, policy), read, is_empty=is_empty)[0] is is_counted


@pytest.mark.parametrize(("used", "dropped"), [(900, None), (918, None), (919, 19), (5000, 4100)])
def test_a_loss_of_more_than_two_percent_is_noticed(check: Check, used: int, dropped: int | None) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert check(request_of(9000), 900, used) == (True, dropped)
    assert {warning.category for warning in given} == ({lms.LMStudioTruncationWarning} if dropped else set())


@pytest.mark.parametrize(
    ("read", "used", "overflows"),
    [(0, 979, False), (0, 981, True), (980, 981, False), (999, 999, False), (999, 1000, True), (None, 4000, True)],
)
def test_an_empty_response_is_an_overflow_if_the_prompt_does_not_fit(
    check: Check, read: int | None, used: int, overflows: bool
) -> None:
    error = pytest.raises(lms.LMStudioContextOverflowError, match=f"the prompt has {used} tokens")
    with warnings.catch_warnings(action="ignore"), error if overflows else contextlib.nullcontext():
        check(request_of(9000), read, used, is_empty=True)


def test_a_server_that_counts_nothing_has_read_no_more_than_its_window(check: Check) -> None:
    with pytest.warns(lms.LMStudioTruncationWarning, match="dropped 3000 of the 4000 tokens"):
        assert check(request_of(9000), None, 4000) == (True, 3000)


def test_a_policy_that_drops_is_no_reason_to_warn(check: Check) -> None:
    with warnings.catch_warnings(action="error"):
        assert check(request_of(9000, "rollingWindow"), 900, 2000) == (True, 1100)


@pytest.mark.parametrize(
    ("written", "is_empty", "warns"), [(3000, True, True), (100, True, True), (99, True, False), (3000, False, False)]
)
def test_a_response_that_was_counted_and_not_sent_is_noticed(
    check: Check, written: int, is_empty: bool, warns: bool
) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        check(request_of(300), 100, is_empty=is_empty, written=written)
    assert [warning.category for warning in given] == [lms.LMStudioTruncationWarning] * warns


SENT: dict[str, list[lms.PredictionEvent]] = {
    "thoughts": [lms.LlmPredictionFragment("Hm", reasoning_type="reasoning")],
    "a call": [lms.ToolCallStart("1"), lms.ToolCallEnd("1", "f", {}, None)],
    "a call that failed": [lms.ToolCallStart("1"), lms.ToolCallFailed({"title": "no JSON"}, None)],
    "the beginning of a call": [lms.ToolCallStart("1"), lms.ToolCallName("f")],
}


@pytest.mark.parametrize("sent", SENT)
def test_thoughts_and_calls_are_what_was_counted(check: Check, sent: str) -> None:
    with warnings.catch_warnings(action="error"):
        check(request_of(300), 100, written=3000, received=SENT[sent])
