"""What `LMStudio` and `LMStudioEmbedding` share: names from other integrations, `to_dict`, pickling and copying.

Nothing here shows or pickles secrets and connections. Core's own pickling deletes from the original object what cannot
be pickled; this one does not touch the original.
"""

import logging
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, SecretStr

from lmstudio_integrations._both_frameworks.connection_settings import (
    SECRETS,
    ConnectionSettings,
    token_from_environment,
)
from lmstudio_integrations._both_frameworks.parameters import UNSET, ParameterOnly
from lmstudio_integrations.errors import LMStudioValueError

logger = logging.getLogger(__name__)

_SILENCE_TIMEOUTS = ("queue_timeout", "first_token_timeout", "idle_timeout")
"""The meaning of `request_timeout` elsewhere: the longest silence of the server, not the duration of a call."""

_CORE_DESCRIPTIONS = {
    "callback_manager": "Receives the events of every call. Default: one without handlers.",
    "pydantic_program_mode": "How responses are made to fit a pydantic class. Default: by the server's grammar; the "
    "other modes are LlamaIndex's own programs.",
    "rate_limiter": "Limits how often calls start. Unset: no limit.",
    "system_prompt": "System prompt that `predict` and LlamaIndex's programs put before the messages. Unset: none.",
    "messages_to_prompt": "Called with messages where LlamaIndex needs them as one text. Default: its generic format.",
    "completion_to_prompt": "Called with the prompt of `complete` to format it; the model continues the result. "
    "Unset: the prompt is a user's message in the model's chat template.",
    "output_parser": "Parses the responses of `predict`. Unset: they are returned as they are.",
    "query_wrapper_prompt": "Template around the prompts of `predict`. Unset: none.",
    "num_workers": "How many batches an async call embeds at once. Unset: as many as the model allows.",
    "embeddings_cache": "Key-value store of vectors by their texts. Unset: vectors are not cached.",
}
"""Our descriptions of core's fields. Its own lack the defaults, and some fields have none."""


class LlamaIndexSettings(ConnectionSettings):
    """The connection settings with what llama-index-core needs of them."""

    _framework_descriptions: ClassVar[Mapping[str, str]] = _CORE_DESCRIPTIONS

    if not TYPE_CHECKING:
        api_token: SecretStr | None = Field(
            default_factory=token_from_environment,
            exclude=True,
            description="LM Studio API token; for several hosts, one for all, or a dict of tokens by host. Unset: "
            "`LM_API_TOKEN`, else `LMSTUDIO_API_TOKEN`, read when the object is made; else the client connects as a "
            "guest. Never in `repr`, pickles or `to_dict`. An alias is `api_key`.",
        )
    else:
        request_timeout: ParameterOnly[float | None] = UNSET

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept `request_timeout`, and the result of `model_dump`, which core extends by the name of the class."""
        settings = {name: value for name, value in values.items() if name != "class_name"}
        if "request_timeout" in settings:
            doubled = [name for name in _SILENCE_TIMEOUTS if name in settings]
            if doubled:
                raise LMStudioValueError(f"'request_timeout' is another name of {doubled[0]!r}; give one of them")
            settings |= dict.fromkeys(_SILENCE_TIMEOUTS, settings.pop("request_timeout"))
        return super()._resolve_aliases(settings)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the settings; all copies share the rate limiter, which cannot be copied."""
        memo = {} if memo is None else memo
        limiter = getattr(self, "rate_limiter", None)
        memo[id(limiter)] = limiter
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Return the settings without secrets, and without what cannot be pickled."""
        fields = {name: value for name, value in self if _can_be_pickled(value)}
        dropped = [name for name, field in type(self).model_fields.items() if name not in fields and not field.exclude]
        if dropped:
            logger.warning("this %s is pickled without %s, which cannot be", type(self).__name__, ", ".join(dropped))
        return {"__dict__": {**fields, **self._secrets_set()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = {name: value for name, value in state["__dict__"].items() if name not in SECRETS}
        self.__init__(**fields)  # type: ignore[misc]  # sets the private attributes as well
        self._record_dropped_secrets(state["__dict__"])


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickling a user's object may raise anything
        return False
    return True
