"""The row `window`: how long the context window is, how long it could be, and what becomes of a prompt beyond it.

The prompts are a sixteenth longer than the window: a template that is rendered alone may differ by a few tokens from
what the server reads, so one token more would not show whether something was cut.
"""

from collections.abc import Sequence
from dataclasses import replace

from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.certify.asking import FEW, Ask, Asking, Case, Reply, Row, Summary, random_words
from lmstudio_integrations.client.certify.choosing import load_own
from lmstudio_integrations.client.models.planning import Machine, Wanted
from lmstudio_integrations.client.models.queries import on_device
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioContextOverflowError, LMStudioServerError
from lmstudio_integrations.types.cards import Observation, outcomes, share_text
from lmstudio_integrations.types.config import LlmLoadModelConfig
from lmstudio_integrations.types.machines import LOCAL

LONGEST = 8_000
"""Tokens. Prompts beyond a longer window would take too long."""

OWN = 1_024
"""The context length of an instance that is loaded for this."""

PROMPTS = 4

_LENGTH = "llm.load.contextLength"

_FACTS = {"loaded": "tokens", "fits": "would fit beside it", "tried": "when tried"}
"""What the line of the card says after these facts."""


def _loaded(asking: Asking) -> Flow[None]:
    asking.fact("loaded", asking.info.context_length, asking.info.context_length)
    yield from ()


def _asked(asking: Asking) -> Flow[None]:
    length = (yield from asking.llm.get_load_fields()).get(_LENGTH)
    if is_count(length):
        asking.fact("asked", length)


def _fits(asking: Asking) -> Flow[None]:
    length = yield from _longest(asking)
    if length is not None:
        asking.fact("fits", length)


def _longest(asking: Asking) -> Flow[int | None]:
    """Return the longest context length of a further instance that fits; `None` if the server does not estimate it."""
    info, operation = asking.info, asking.operation
    most, device = info.max_context_length, info.device_identifier or LOCAL
    if not is_count(most):
        return None
    machine = Machine(operation, (yield from on_device(operation, device)), device, "own")
    plan, _ = yield from machine.plan([Wanted("llm", info.model_key, {_LENGTH: most}, most, is_further=True)])
    (planned,) = plan.models
    if planned.memory_bytes is None:
        return None
    return planned.largest_context_length if planned.fit == "too_large" else planned.context_length


def _tried(asking: Asking) -> Flow[None]:
    length = (yield from _longest(asking)) if asking.may_load else None
    if length is None:
        return

    def record(own: Asking) -> Flow[None]:
        asking.fact("tried", "loaded" if own.info.context_length >= length else "shortened")
        yield from ()

    if not (yield from _on_own(asking, length, record)):
        asking.fact("tried", "refused")


def _beyond(asking: Asking) -> Flow[None]:
    if asking.may_load and (yield from _on_own(asking, OWN, _overflow)):
        return
    if asking.info.context_length <= LONGEST:
        yield from _overflow(asking)
    else:
        asking.fact("beyond", "not loaded" if asking.may_load else "not tried; --load tries it")


def _on_own(asking: Asking, context_length: int, ask: Ask) -> Flow[bool]:
    """Ask an instance that is loaded for it; return whether the server loads one."""
    info, config = asking.info, LlmLoadModelConfig(context_length=context_length, max_parallel_predictions=1)
    try:
        own = yield from load_own(
            asking.model.context, "llm", info.model_key, config=config, device=info.device_identifier
        )
    except LMStudioServerError:
        return False
    try:
        yield from ask(replace(asking, model=own, info=(yield from own.get_info())))
    finally:
        yield from own.unload_if_loaded_here()
    return True


def _overflow(asking: Asking) -> Flow[None]:
    window = asking.info.context_length
    for _ in range(PROMPTS):
        prompt = f"Which of these words is a color? {random_words(window + window // 16)}"
        reply = yield from asking.respond(prompt, FEW)
        outcome = judge(reply, window)
        asking.verdict("beyond", outcome, outcome in {"rejected", "taken"}, reply.text)


def judge(reply: Reply, window: int) -> str:
    """Return what became of a prompt that is longer than the window."""
    if reply.result is None:  # an overflow that is reported as something else cannot be handled as one
        return "rejected" if isinstance(reply.error, LMStudioContextOverflowError) else "unclear error"
    if not (reply.result.content or reply.result.reasoning_content):
        return "empty"
    count = reply.result.stats.prompt_tokens_count
    return "not reported" if count is None else "taken" if count > window else "cut in silence"


def _summarize(observations: Sequence[Observation]) -> Summary:
    facts = {each.case: each.outcome for each in observations if each.kind == "fact"}
    beyond = [each for each in observations if each.kind == "verdict"]
    texts = [f"{facts[case]} {text}" for case, text in _FACTS.items() if case in facts]
    if "beyond" in facts:
        texts.append(f"beyond them {facts['beyond']}")
    elif beyond:
        texts.append(f"beyond them {share_text(beyond)} as it should be ({outcomes(beyond)})")
    text = ", ".join(texts)
    if any(each.outcome in {"cut in silence", "empty"} for each in beyond):
        return Summary(text, "check_context=True notices a prompt that the server cut or did not read")
    loaded, fits = (int(facts.get(case, 0)) for case in ("loaded", "fits"))
    if fits > loaded and facts.get("tried") in {None, "loaded"}:
        return Summary(text, f"context_length={fits} would fit if you need more")
    return Summary(text)


WINDOW = Row(
    name="window",
    question="How long is the context window, and does a prompt beyond it fail with a clear error?",
    anchor="check-context-overflow",
    cases=[
        Case("loaded", _loaded),
        Case("asked", _asked),
        Case("fits", _fits),
        Case("tried", _tried),
        Case("beyond", _beyond),
    ],
    prompt_tokens=16_500,
    predicted_tokens=200,
    summarize=_summarize,
    apart=True,
)
