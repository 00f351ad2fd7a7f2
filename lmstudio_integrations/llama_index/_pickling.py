"""How the adapters travel: `to_dict`, pickle, copies. Secrets and connections stay behind.

Core's own pickling tries every attribute and deletes what cannot be pickled from the living object; here the living one
is left alone.
"""

import logging
import pickle
from typing import Any, Self

from pydantic import Field, SecretStr

from lmstudio_integrations._adapters.settings import SECRETS, ConnectionSettings, token_from_environment

logger = logging.getLogger(__name__)


class PickleMixin(ConnectionSettings):
    """Settings that can be taken to another process."""

    api_token: SecretStr | None = Field(default_factory=token_from_environment, exclude=True)
    """An LM Studio API token. Without one: `LM_API_TOKEN`, else `LMSTUDIO_API_TOKEN`, read when the object is made.
    Never in `repr`, pickles or `to_dict`. An alias is `api_key`."""

    @classmethod
    def _under_own_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept what `model_dump` returns: core puts the name of the class among the fields."""
        return super()._under_own_names({name: value for name, value in values.items() if name != "class_name"})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the settings; a rate limiter cannot be copied, and counts for all copies."""
        memo = {} if memo is None else memo
        limiter = getattr(self, "rate_limiter", None)
        memo[id(limiter)] = limiter
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        """Return the settings; what cannot be pickled is left out, and so is the token."""
        fields = {name: value for name, value in self.__dict__.items() if _can_be_pickled(value)}
        lost = [name for name, field in type(self).model_fields.items() if name not in fields and not field.exclude]
        if lost:
            logger.warning("this %s is pickled without %s, which cannot be", type(self).__name__, ", ".join(lost))
        return {"__dict__": {**fields, **self._secrets_held()}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        held = dict(state["__dict__"])
        fields = {name: value for name, value in held.items() if name not in SECRETS}
        self.__init__(**fields)  # type: ignore[misc]  # builds the private state as well
        self._miss_secrets(held)


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - objects of others may raise anything here
        return False
    return True
