"""`reasoning_effort` of the chat adapters: what is sent for it to each kind of model. Pure.

Levels are a custom field of a model (docs/protocol.md#custom-fields); only models of LM Studio's catalog have any. A
server skips a field or a value that a model lacks, and lists what it has over HTTP only, so a table here has the known
models. `EffortCheck` warns of what has no effect.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.kv_config import custom_fields_of
from lmstudio_integrations.types.reasoning import EFFORTS


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
        name: What the server calls it: `on`, `off` or a level; `None` if nothing is sent.
    """

    enable_thinking: bool | None = None
    fields: Mapping[str, Any] = {}
    name: str | None = None


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
            return SentEffort(enable_thinking=False, name="off")
        return SentEffort()
    known = _known(key)
    can_be_off = known is None or known.can_be_off
    if (effort == "none" and can_be_off) or (known is not None and not known.efforts):
        is_on = effort != "none"
        return SentEffort(is_on, {f"{field}.enableThinking": is_on}, "on" if is_on else "off")
    level = _nearest(effort, known.efforts) if known else effort
    return SentEffort(fields={f"{field}.reasoningEffort": level}, name=level)


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
    wanted = EFFORTS.index(effort)
    return min(reversed(efforts), key=lambda each: abs(EFFORTS.index(each) - wanted))
