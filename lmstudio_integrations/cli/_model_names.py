"""Finds the downloaded models that a user may mean. Pure functions."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.models import ModelInfo

_MOST_LISTED = 10
"""The most models that an error lists."""


class FoundModel(NamedTuple):
    """A downloaded model, and the name to load it with, which may select one of its variants or files."""

    info: ModelInfo
    name: str


def find_models(name: str, downloaded: Sequence[ModelInfo], *, exact: bool = False) -> list[FoundModel]:
    """Return the downloaded model with this name; without one, all models whose names contain it.

    Args:
        name: A key, a path, or a variant; upper and lower case are the same.
        downloaded: The downloaded models.
        exact: Whether only a full name counts.

    Raises:
        LMStudioValueError: If there is no such model.
    """
    for info in downloaded:
        if spelled := next((each for each in _names(info) if each.casefold() == name.casefold()), None):
            return [FoundModel(info, spelled)]
    part = name.casefold()
    candidates = [] if exact else [(info, [*_names(info), info.display_name]) for info in downloaded]
    partly = by_key(info for info, names in candidates if any(part in each.casefold() for each in names))
    if not partly:
        raise LMStudioValueError(f"no downloaded model matches {name!r}; {_suggestion(name, downloaded)}")
    return [FoundModel(info, info.model_key) for info in partly]


def by_key(models: Iterable[ModelInfo]) -> list[ModelInfo]:
    """Return each model once, even if it is on several devices."""
    found: dict[str, ModelInfo] = {}
    for info in models:
        found.setdefault(info.model_key, info)
    return list(found.values())


def listed(names: Iterable[str]) -> str:
    """Return names for a message, at most ten of them."""
    every = list(dict.fromkeys(names))
    more = len(every) - _MOST_LISTED
    return ", ".join(every[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _names(info: ModelInfo) -> list[str]:
    """Return the names by which a server finds a model, the key first."""
    names = (info.model_key, info.path, info.indexed_model_identifier, info.selected_variant, *(info.variants or ()))
    return [name for name in names if name]


def _suggestion(name: str, downloaded: Sequence[ModelInfo]) -> str:
    # People type the last part of a key; both spellings lead to the key.
    keys = {
        spelled: key for key in (info.model_key for info in downloaded) for spelled in (key.rpartition("/")[2], key)
    }
    similar = dict.fromkeys(keys[each] for each in closest_names(name, keys, most=3))
    if similar:
        return f"did you mean {' or '.join(map(repr, similar))}?"
    if not downloaded:
        return f"none is downloaded; `lmsi get {name}` downloads one"
    return f"`lmsi ls` lists them, and `lmsi get {name}` downloads one"
