"""Which observations the table of the causes of errors recognizes."""

from collections.abc import Iterable
from unittest.mock import patch

from lmstudio_integrations.errors import LMStudioModelLoadError, LMStudioPredictionError, LMStudioServerError
from lmstudio_integrations.protocol import errors
from lmstudio_integrations.protocol.errors import CAUSES, Cause
from tools.evidence.rows import Row

_DEFAULTS = {"error-load": LMStudioModelLoadError, "error-predict": LMStudioPredictionError}
"""The class that the endpoint alone gives."""


def count_causes(rows: Iterable[Row]) -> tuple[list[tuple[Cause, list[str]]], list[str]]:
    """Return the ids of the errors of each cause, and of those whose words have none."""
    found: dict[Cause, list[str]] = {cause: [] for cause in CAUSES}
    unknown = list[str]()
    for row in rows:
        if row.kind.startswith("error-"):
            causes = _looked_up(row)
            if causes:  # else its code decides
                cause = next((each for each in causes if each is not None), None)
                (unknown if cause is None else found[cause]).append(row.id)
    return list(found.items()), unknown


def _looked_up(row: Row) -> list[Cause | None]:
    """Return what the table gave for each text of an error that was looked up there."""
    given, look_up = list[Cause | None](), errors._cause_in

    def note(texts: str, default: type[LMStudioServerError]) -> Cause | None:
        given.append(look_up(texts, default))
        return given[-1]

    with patch.object(errors, "_cause_in", note):
        errors.to_exception(row.payload, "Call", _DEFAULTS.get(row.kind, LMStudioServerError))
    return given
