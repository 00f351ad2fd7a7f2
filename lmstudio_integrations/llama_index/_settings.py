"""What the adapters of models share besides their settings: names from other integrations, and how they are pickled."""

import logging
import pickle
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel

from lmstudio_integrations._adapters.server_settings import SECRETS, ServerSettings
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.timeouts import EXPIRIES

logger = logging.getLogger(__name__)

_SILENCE_TIMEOUTS = [name for name, expiry in EXPIRIES.items() if expiry.is_silence]
"""The meaning of `request_timeout` elsewhere: the longest silence of the server, not the duration of a call."""

CORE_DESCRIPTIONS = {
    "callback_manager": "Receives the events of every call. It has no handlers by default.",
    "pydantic_program_mode": "How LlamaIndex makes responses fit a pydantic class. The default uses the server's "
    "grammar, the other modes LlamaIndex's own programs.",
    "rate_limiter": "Limits how often calls start. No limit by default.",
    "system_prompt": "System prompt that `predict` and LlamaIndex's programs put before the messages. None by default.",
    "messages_to_prompt": "Called with messages where LlamaIndex needs one text. The default is its generic format.",
    "completion_to_prompt": "Called with the prompt of `complete` to format it; the model continues the result. If "
    "unset, the prompt is a user message in the model's chat template.",
    "output_parser": "Parses the responses of `predict`. By default, they stay as they are.",
    "query_wrapper_prompt": "Template around the prompts of `predict`. None by default.",
    "num_workers": "How many batches an async call embeds at once. By default, as many as the model allows.",
    "embeddings_cache": "Key-value store that caches vectors by their texts. By default, nothing is cached.",
}
"""Our descriptions of core's fields. Its own lack the defaults, and some fields have none."""


def with_silence_timeouts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with our names of `request_timeout`, and without the name of the class, which core dumps.

    Raises:
        LMStudioValueError: If one of them is given, too.
    """
    named = {name: value for name, value in settings.items() if name != "class_name"}
    if "request_timeout" in named:
        doubled = [name for name in _SILENCE_TIMEOUTS if name in named]
        if doubled:
            raise LMStudioValueError(f"'request_timeout' is another name of {doubled[0]!r}; give one of them")
        named |= dict.fromkeys(_SILENCE_TIMEOUTS, named.pop("request_timeout"))
    return named


class ComponentSettings(ServerSettings):
    """How a component of LlamaIndex is copied and pickled.

    Core's own way to pickle deletes from the original what cannot be pickled.
    """

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        limiter = getattr(self, "rate_limiter", None)
        memo[id(limiter)] = limiter  # it cannot be copied, so all copies share it
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        return {"__dict__": {**_picklable(self), **self._secrets_set()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = state["__dict__"]
        self.__init__(**{name: value for name, value in fields.items() if name not in SECRETS})  # type: ignore[misc]  # as core's, for the private attributes
        self._record_dropped_secrets(fields)


def _picklable(model: BaseModel) -> dict[str, Any]:
    """Return the settings of an adapter that can be pickled; those that are lost are logged."""
    fields = {name: value for name, value in model if _can_be_pickled(value)}
    dropped = [name for name, field in type(model).model_fields.items() if name not in fields and not field.exclude]
    if dropped:
        logger.warning("this %s is pickled without %s, which cannot be", type(model).__name__, ", ".join(dropped))
    return fields


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickling a user's object may raise anything
        return False
    return True
