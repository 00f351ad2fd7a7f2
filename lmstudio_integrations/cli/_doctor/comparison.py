"""The verdicts about several hosts together: pure functions. `__init__.py` calls them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from lmstudio_integrations._support.text import counted
from lmstudio_integrations.cli._doctor.checks import OF_MODELS, Check
from lmstudio_integrations.types.hosts import SAME_FILE, HostStatus, describe_values, differences_of
from lmstudio_integrations.types.models import ModelInstanceInfo

Instances: TypeAlias = Sequence[ModelInstanceInfo]


def of_host(check: Check, host: str | None, *, others_serve: bool) -> Check:
    """Return a check as that of one of several hosts. Calls move to another host if one cannot serve them.

    Args:
        check: The check.
        host: The host.
        others_serve: Whether another host can serve calls.
    """
    is_replaceable = others_serve and check.name not in OF_MODELS  # a response that is no use does not move
    verdict = "warning" if check.verdict == "problem" and is_replaceable else check.verdict
    return replace(check, host=host, verdict=verdict)


def comparison_check(loaded: Mapping[str, Instances | None]) -> Check:
    """Check whether the models that several hosts have loaded are the same.

    Args:
        loaded: The loaded instances by host; `None` for a host that cannot be used.
    """
    listed = {host: instances for host, instances in loaded.items() if instances is not None}
    text = f"{len(listed)} of {len(loaded)} hosts can be used"
    if len(listed) < 2:
        return Check("hosts", "skipped", text, data={"compared": [], "differences": []})
    models = _loaded_on_several(listed)
    differences = {model: attributes for model, statuses in models.items() if (attributes := differences_of(statuses))}
    data = {
        "compared": list(listed),
        "differences": [{"model": name, **attributes} for (_, name), attributes in differences.items()],
    }
    if not differences:
        common = counted(len(models), "model") if models else "no model"
        return Check("hosts", "ok", f"{text}; {common} loaded on more than one", data=data)
    details = tuple(f"{name}: {_describe(attributes)}" for (_, name), attributes in differences.items())
    fix = SAME_FILE["embedding" if any(kind == "embedding" for kind, _ in differences) else "llm"]
    return Check("hosts", "warning", f"{counted(len(differences), 'model')} loaded differently", fix, details, data)


def _loaded_on_several(listed: Mapping[str, Instances]) -> dict[tuple[str, str], list[HostStatus]]:
    """Return by kind and name the models that calls find on several hosts. Further names of the same are left out."""
    names = {
        (info.type, name) for each in listed.values() for info in each for name in (info.model_key, info.identifier)
    }
    statuses_by_model: dict[tuple[str, str], list[HostStatus]] = {}
    for kind, name in sorted(names):
        statuses = [_status(host, info) for host, each in listed.items() if (info := _find(kind, name, each))]
        if len(statuses) > 1 and statuses not in statuses_by_model.values():
            statuses_by_model[kind, name] = statuses
    return statuses_by_model


def _find(kind: str, name: str, instances: Instances) -> ModelInstanceInfo | None:
    """Return the instance that calls with a name use: one with that identifier comes before others of that key."""
    matching = [info for info in instances if info.type == kind and name in {info.model_key, info.identifier}]
    return min(matching, key=lambda info: info.identifier != name, default=None)


def _status(host: str, info: ModelInstanceInfo) -> HostStatus:
    quantization = info.quantization.name if info.quantization else None
    return HostStatus(host=host, path=info.path, quantization=quantization, context_length=info.context_length)


def _describe(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(f"{name} ({describe_values(by_host)})" for name, by_host in attributes.items())
