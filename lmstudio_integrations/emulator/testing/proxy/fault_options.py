"""Which faults users mean: by kind, phase or name, and in the option of `lmsi serve`."""

from collections.abc import Iterable, Sequence

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.emulator.testing.proxy.fault import KINDS, Fault
from lmstudio_integrations.emulator.testing.proxy.fault_table import FAULTS
from lmstudio_integrations.emulator.testing.proxy.injections import Injection
from lmstudio_integrations.emulator.testing.proxy.wire_items import EMBEDDING, LOADS
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.endpoints import ENDPOINTS

PHASES = tuple(dict.fromkeys(fault.phase.word for fault in FAULTS.values()))

OPERATIONS: dict[str, tuple[str, ...]] = {
    "predict": ("predict",),
    "complete": ("completeRawText",),
    "embed": (EMBEDDING,),
    "load": tuple(sorted(LOADS)),
}
"""The endpoints of what users call an operation; the name of any other endpoint is one as well."""

_NAME_CUTOFF = 0.7
"""How similar a mistyped name must be, 0 to 1: many consist of the same words."""

_ENDPOINTS = {name for endpoints in ENDPOINTS.values() for name in endpoints}


def choose_faults(choices: Sequence[str]) -> list[Fault]:
    """Return the faults of kinds, phases and names; without a choice, those of all kinds. A finer one needs its name.

    Raises:
        LMStudioValueError: If a choice is none of them.
    """
    for choice in choices:
        if choice not in {*KINDS, *PHASES, *FAULTS}:
            groups = f"there are the kinds {', '.join(KINDS)}, and the phases {', '.join(PHASES)}; "
            raise _unknown(choice, [*KINDS, *PHASES, *FAULTS], groups)
    names = {*choices} or {*KINDS}
    return [fault for fault in FAULTS.values() if names & fault.choices]


def find_fault(name: str) -> Fault:
    """Return the fault of a name.

    Raises:
        LMStudioValueError: If there is none.
    """
    if name not in FAULTS:
        raise _unknown(name, FAULTS)
    return FAULTS[name]


def read_injections(text: str) -> tuple[Injection, ...]:
    """Return what `NAME[:PROBABILITY][@OPERATION]` injects.

    Raises:
        LMStudioValueError: If a part of it is invalid.
    """
    rest, at_sign, operation = text.partition("@")
    name, colon, probability = rest.partition(":")
    return find_fault(name).recurring(
        _probability(probability, text) if colon else 1.0, _endpoints(operation, text) if at_sign else None
    )


def _probability(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise LMStudioValueError(
            f"the probability {number!r} in {text!r} is not a number above 0 and up to 1; write 0.1, for example"
        )
    return value


def _endpoints(operation: str, text: str) -> Iterable[str]:
    if operation in OPERATIONS:
        return OPERATIONS[operation]
    if operation not in _ENDPOINTS:
        raise LMStudioValueError(
            f"unknown operation {operation!r} in {text!r}; known are {', '.join(OPERATIONS)}, and the endpoints "
            f"{', '.join(sorted(_ENDPOINTS))}"
        )
    return (operation,)


def _unknown(name: str, names: Iterable[str], groups: str = "") -> LMStudioValueError:
    nearest = closest_names(name, names, cutoff=_NAME_CUTOFF)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"{groups}`lmsi serve --fault list` lists the faults"
    return LMStudioValueError(f"unknown fault {name!r}; {remedy}")
