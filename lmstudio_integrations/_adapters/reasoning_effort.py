"""`reasoning_effort` of the chat adapters: what is sent for it to each kind of model. Pure.

Levels are a custom field of a model (docs/protocol.md#custom-fields); only models of LM Studio's catalog have any. A
server skips a field or a value that a model lacks and does not list what it has, so a table here has the known models.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.kv_config import custom_fields_of

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]

_EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)


class _Abilities(NamedTuple):
    """What a model can be told: the values of its field `reasoningEffort`, and whether it can respond at once."""

    efforts: tuple[str, ...] = ()
    can_be_off: bool = True


_KNOWN = {
    **dict.fromkeys(
        ("openai/gpt-oss-20b", "openai/gpt-oss-120b"), _Abilities(("low", "medium", "high"), can_be_off=False)
    ),
    "qwen/qwen3.8-27b": _Abilities(("low", "medium", "xhigh")),
    **dict.fromkeys(("qwen/qwen3.5-9b", "nvidia/nemotron-3-nano-omni"), _Abilities()),
}


class SentEffort(NamedTuple):
    """What is sent for an effort.

    Attributes:
        enable_thinking: The setting of this name; `None` leaves it unset.
        fields: Custom fields of the model, by their wire keys.
        problem: Why the effort has no effect, and what helps; `None` if it may have one.
    """

    enable_thinking: bool | None = None
    fields: Mapping[str, Any] = {}
    problem: str | None = None


def is_catalog_key(key: str | None) -> bool:
    """Whether a model key is that of a model of LM Studio's catalog."""
    return custom_fields_of(key) is not None


def sent_effort(effort: str, enable_thinking: object, key: str | None) -> SentEffort:
    """Return what is sent for an effort.

    Args:
        effort: How much the model should reason.
        enable_thinking: The setting of this name that the user made.
        key: The model's key, if it is known.

    Raises:
        LMStudioValueError: If `enable_thinking` contradicts it.
    """
    if enable_thinking is (effort == "none"):
        raise LMStudioValueError(
            f"enable_thinking={enable_thinking!r} contradicts reasoning_effort={effort!r}; set one of them to None"
        )
    field = custom_fields_of(key)
    if field is None or key is None:
        if effort == "none":
            return SentEffort(enable_thinking=False)
        return SentEffort(problem=_without_levels(effort, key))
    known = _known(key)
    if known is not None and not known.can_be_off and effort == "none":
        least = known.efforts[0]
        problem = f"{key!r} always reasons; write reasoning_effort={least!r}, which is sent in place of 'none'"
        return SentEffort(fields={f"{field}.reasoningEffort": least}, problem=problem)
    if effort == "none" or (known is not None and not known.efforts):
        return SentEffort(effort != "none", {f"{field}.enableThinking": effort != "none"})
    return SentEffort(fields={f"{field}.reasoningEffort": _nearest(effort, known.efforts) if known else effort})


def reasoning_profile(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return langchain-core's keys about reasoning for the info of a model, as far as they are known."""
    known = _known(str(info.get("modelKey")))
    if known is None:
        return {}
    return {"reasoning_output": True, **({"reasoning_effort_levels": list(known.efforts)} if known.efforts else {})}


def _known(key: str) -> _Abilities | None:
    return _KNOWN.get(re.split("[@:]", key)[0])


def _nearest(effort: str, efforts: tuple[str, ...]) -> str:
    """Return the nearest effort that a model has; of two, the higher one."""
    wanted = _EFFORTS.index(effort)
    return min(reversed(efforts), key=lambda each: abs(_EFFORTS.index(each) - wanted))


def _without_levels(effort: str, key: str | None) -> str:
    return (
        f"reasoning_effort={effort!r} has no effect on {'the model' if key is None else repr(key)}: only models of LM "
        "Studio's catalog have levels of reasoning, by keys such as 'openai/gpt-oss-20b'; name one as model, or set "
        "reasoning_budget"
    )
