"""Which tools a prediction offers, and a required call that did not come: one text for the client and both adapters.

`entries/missing_call.py` logs it for `respond`, `act` and their streams, `_adapters/finished_response.py` for what
the adapters call.
"""

import logging
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.protocol.kv_config import collapse
from lmstudio_integrations.types._config_base import wire_keys
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEnd, PredictionResult

logger: logging.Logger = logging.getLogger(__name__)

_TOOLS_KEY = wire_keys(LlmPredictionConfig)["raw_tools"].key


def requires_call(settings: LlmPredictionConfig) -> bool:
    """Whether a prediction must call a tool."""
    return (settings.tool_choice or {}).get("mode") == "required"


def offered_tools(settings: LlmPredictionConfig) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a prediction offers, in wire form."""
    return (settings.raw_tools or {}).get("tools") or []


def tools_in(parameter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of the tools that a request offers, from its parameter."""
    if "predictionConfigStack" not in parameter:  # of a generator
        return parameter.get("tools") or []
    return tools_among(collapse(parameter["predictionConfigStack"]))


def tools_among(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of tools among settings by their wire keys."""
    use = settings.get(_TOOLS_KEY)
    return (use.get("tools") or []) if is_object(use) else []


def may_call(settings: LlmPredictionConfig) -> bool:
    return bool(offered_tools(settings)) and (settings.tool_choice or {}).get("mode") != "none"


def lacks_call(result: PredictionResult) -> bool:
    """Whether the model responded without even beginning a tool call, and was not stopped by the caller."""
    return not result.tool_calls and result.end.stats.get("stopReason") != "userStopped"


def missing_call(choice: str) -> str:
    """Return what is wrong with a response without a call, and the remedy."""
    return (
        f"a tool call was required, and the model responded without one (tool_choice={choice!r}); use a model that was "
        "trained for tools, or tool_choice='auto'"
    )


def log_missing_call(end: PredictionEnd, choice: str) -> None:
    """Log that a response has no call."""
    logger.warning("%r: %s", end.model_info.get("modelKey"), missing_call(choice))
