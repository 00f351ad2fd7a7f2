"""Chooses the instance that a card is of, and describes it: an idle one that is loaded, else one of its own."""

import secrets
from contextlib import suppress
from typing import Final

from lmstudio_integrations.client.embeddings import Embedder
from lmstudio_integrations.client.models.model import Model
from lmstudio_integrations.client.models.planning import plan_memory
from lmstudio_integrations.client.models.queries import (
    get_processing_state,
    list_all_loaded,
    on_device,
    survey_hardware,
    version,
)
from lmstudio_integrations.client.models.state import (
    ModelState,
    identifier_of,
    is_on,
    matches,
    specifier_of_instance,
)
from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.errors import (
    LMStudioInsufficientResourcesError,
    LMStudioModelNotFoundError,
    LMStudioProtocolError,
    LMStudioServerError,
    LMStudioValueError,
)
from lmstudio_integrations.types.cards import CardModel
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.hosts import DEFAULT_PARALLEL, PARALLEL_KEY, parallel_of
from lmstudio_integrations.types.machines import LOCAL
from lmstudio_integrations.types.models import ModelInstanceInfo

OWN_PREFIX: Final = "lmsi-certify-"
"""What the identifiers of instances begin with that are loaded for a card."""

OWN_TTL = 600.0
"""Seconds. Such an instance disappears by itself if the connection is lost."""

_MODELS: dict[ModelKind, type[LanguageModel] | type[Embedder]] = {"llm": LanguageModel, "embedding": Embedder}


def choose(context: ClientContext, name: str, device: str | None) -> Flow[Model]:
    """Return an idle instance of a model; load one if none is loaded, and it fits beside what is.

    Args:
        context: The server.
        name: The key or the identifier of the model.
        device: The machine that it must be on; `None` for any.

    Raises:
        LMStudioInsufficientResourcesError: If it does not fit.
        LMStudioModelNotFoundError: If there is no such model.
        LMStudioValueError: If all loaded instances of it are busy.
    """
    operation = Operation(context)
    where = yield from on_device(operation, device)
    loaded = yield from list_all_loaded(operation)
    matching = [each for each in loaded if matches(name, each[1]) and (device is None or is_on(each[1], where))]
    named = [each for each in matching if identifier_of(each[1]) == name]  # an identifier comes before a key
    busy: list[str] = []
    for kind, info in named or matching:
        identifier = identifier_of(info)
        with suppress(LMStudioModelNotFoundError):  # it was unloaded meanwhile
            processing = yield from get_processing_state(operation, kind, specifier_of_instance(info))
            is_of_another_call = identifier.startswith(OWN_PREFIX) and not named
            if processing.status == "idle" and not processing.queued and not is_of_another_call:
                there = info.get("deviceIdentifier")
                state = ModelState(kind, identifier, policy="require_loaded", device=there, on_config_mismatch="ignore")
                return _MODELS[kind](context, state)
            busy.append(identifier)
    if busy:
        names = ", ".join(map(repr, busy))
        raise LMStudioValueError(f"{names} is in use, and would be measured wrongly; wait until it is idle")
    plan = yield from plan_memory(operation, [name], LOCAL if device is None else device, "own")
    (planned,) = plan.models
    if planned.fit != "fits":
        title = f"{planned.model_key!r} is not loaded, and does not fit beside what is loaded on {plan.place}"
        suggestion = f"load it with `lms load {planned.model_key}`, which may unload another model, or unload one"
        text = f"{title}\n{plan}\n  suggestion: {suggestion}"
        raise LMStudioInsufficientResourcesError(text, title=title, suggestion=suggestion, plan=plan)
    state = ModelState(
        planned.kind,
        planned.model_key,
        policy="new_instance",
        ttl=OWN_TTL,
        device=device,
        on_config_mismatch="ignore",
        requested_identifier=f"{OWN_PREFIX}{secrets.token_hex(3)}",
    )
    model = _MODELS[planned.kind](context, state)
    yield from model.load()
    return model


def describe(model: Model) -> Flow[tuple[CardModel, ModelInstanceInfo]]:
    """Return what a card says of an instance and of its server, and the info of the instance."""
    operation = Operation(model.context)
    info = yield from model.get_info()
    fields = yield from model.get_load_fields()
    server = yield from version(operation)
    described = CardModel(
        key=info.model_key,
        identifier=info.identifier,
        kind=model.state.kind,
        path=info.path,
        format=info.format,
        architecture=info.architecture,
        quantization=info.quantization.name if info.quantization else None,
        context_length=info.context_length,
        slots=parallel_of(fields.get(PARALLEL_KEY)) or DEFAULT_PARALLEL[model.state.kind],
        load_config=fields,
        device=info.device_identifier,
        server=f"{server.version} (build {server.build})",
        runtime=(yield from _runtime(operation, info.format)),
    )
    return described, info


def _runtime(operation: Operation, file_format: str) -> Flow[str | None]:
    """Return the engine for a format, with its version; `None` if the server does not say it."""
    try:
        survey = yield from survey_hardware(operation)
    except (LMStudioServerError, LMStudioProtocolError):
        return None
    engines = [
        each for each in survey.engines if file_format.lower() in map(str.lower, each.supported_model_format_names)
    ]
    return ", ".join(f"{each.name} {each.version}".strip() for each in engines) or None
