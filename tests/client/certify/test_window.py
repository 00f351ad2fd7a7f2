"""The row `window`: how long the window is and could be, and what becomes of a prompt beyond it."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.certify.serving import WINDOW
from lmstudio_integrations.emulator import Emulator
from tests.client.certify.canned import CannedModel, observed, response
from tests.faults.actions import UNKNOWN_ENDPOINT, warning
from tests.faults.proxy import ALWAYS, Injection, Proxy, ProxyThread

Rules = list[dict[str, Any]]


def serve(**fields: Any) -> Emulator:
    """Return a server with 8 GiB of memory, of which 4096 tokens of its model take one, and the model another one."""
    return Emulator(catalog={"model": [{"key": "good", "kib_per_token": 256, **fields}], "memory_gib": 8})


def measure(server: Emulator, address: str | None = None) -> lms.CardRow:
    with lms.Client(address or server.address) as client:
        (row,) = client.certify("good", rows=["window"]).rows
    assert not server.loaded()
    return row


def facts(row: lms.CardRow) -> dict[str, str]:
    return {each.case: each.outcome for each in row.observations if each.kind == "fact"}


@pytest.mark.parametrize(
    ("then", "outcome", "advice"),
    [
        (None, "rejected", "context_length=22528 would fit if you need more"),
        (
            [{"fault": "truncate"}, {"text": "Blue."}],
            "cut in silence",
            "check_context=True notices a prompt that the server cut or did not read",
        ),
        ([{"fault": "empty"}], "rejected", "context_length=22528 would fit if you need more"),
        ([{"error": "The engine has failed"}], "unclear error", "context_length=22528 would fit if you need more"),
    ],
)
def test_four_prompts_beyond_the_window(then: Rules | None, outcome: str, advice: str) -> None:
    rules = [{"when": {"last": "^Which of these words"}, "then": then}] if then else []
    with serve(memory_gib=1, context_length=2048, rules=rules) as server:
        row = measure(server)
    assert [each.outcome for each in row.verdicts] == [outcome] * 4
    assert row.share == (outcome == "rejected")
    beyond = f"{4 if outcome == 'rejected' else 0} of 4 as it should be ({outcome} 4)"
    assert row.summary == f"2048 tokens, 22528 would fit beside it, beyond them {beyond}"
    assert row.advice == advice


@pytest.mark.parametrize(
    ("content", "tokens", "outcome"),
    [("River.", 600, ("cut in silence", 0)), ("River.", 601, ("taken", 1)), ("", 0, ("empty", 0))],
)
def test_what_was_read_decides_whether_the_prompt_was_cut(
    content: str, tokens: int, outcome: tuple[str, float]
) -> None:
    model = CannedModel([response(content, prompt=tokens)])
    assert observed(WINDOW, "beyond", model, context_length=600) == [outcome] * 4


def test_a_server_that_does_not_estimate_does_not_say_what_fits() -> None:
    unknown = Injection("estimateModelUsage request", warning(UNKNOWN_ENDPOINT), ALWAYS)
    with (
        serve(context_length=600) as server,
        ProxyThread() as proxies,
        Proxy(proxies, server.address, [unknown]) as proxy,
    ):
        row = measure(server, proxy.address)
    assert facts(row) == {"loaded": "600"}
    assert row.summary.startswith("600 tokens, beyond them 4 of 4 ")
    assert row.advice is None


def test_prompts_beyond_a_long_window_are_not_tried() -> None:
    with serve(memory_gib=1, kib_per_token=64, context_length=9000) as server:
        row = measure(server)
    assert facts(row) == {"loaded": "9000", "fits": "32768", "beyond": "not tried: longer than 8,000"}
    assert (row.verdicts, row.advice) == ([], "context_length=32768 would fit if you need more")
