"""Questions of the probe about loading, finding and describing models."""

import time
from typing import Any

from lmstudio_integrations.cli._probe.context import SMALL, TTL, ProbeContext
from lmstudio_integrations.cli._probe.payloads import (
    FEW,
    GREETING,
    OVERFLOWING,
    PATTERN,
    by_identifier,
    by_reference,
    config_stack,
    prediction,
)

ODD_LENGTH = 300
"""A context length that an engine may round."""

ESTIMATED = ((2048, 1), (4096, 1), (8192, 1), (4096, 4))
"""Context lengths, each with a number of predictions at once, whose memory is estimated."""

IDLE_TTL_MS = 300
IDLE_CHECKS, IDLE_PAUSE = 40, 0.25
"""How often, and every how many seconds, a question looks whether its idle instance is still loaded."""


def load_main(context: ProbeContext) -> None:
    context.reference  # noqa: B018 - the instance has been loaded now, and described


def load_without_identifier(context: ProbeContext) -> None:
    instance = context.client.llm.load_new_instance(context.model_key, ttl=TTL, show_progress=False)
    context.own(instance.identifier)


def _load_parameter(context: ProbeContext, identifier: str, **members: Any) -> dict[str, Any]:
    return {
        "modelKey": context.model_key,
        "identifier": identifier,
        "ttlMs": round(TTL * 1000),
        "loadConfigStack": config_stack({"llm.load.contextLength": 256}),
        **members,
    }


def load_with_taken_identifier(context: ProbeContext) -> None:
    with context.wire() as wire:
        frame = wire.stream("loadModel", _load_parameter(context, context.main.identifier))
    if frame["type"] == "channelClose":  # the server has chosen another identifier, which begins with the requested one
        for handle in context.client.llm.list_loaded():
            if handle.identifier.startswith(f"{context.main.identifier}:"):
                context.own(handle.identifier)


def load_unknown_model(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.stream(
            "loadModel", _load_parameter(context, context.new_identifier(), modelKey="lmsi-probe/no-such-model")
        )


def cancel_load(context: ProbeContext) -> None:
    with context.wire() as wire:
        load = wire.open("loadModel", _load_parameter(context, context.new_identifier()))
        wire.cancel(load)
        wire.finish(load)


def wait_for_idle_ttl(context: ProbeContext) -> None:
    identifier = context.new_identifier()
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, identifier, ttlMs=IDLE_TTL_MS))
        for _ in range(IDLE_CHECKS):
            lookup = {"specifier": by_identifier(identifier), "throwIfNotFound": False}
            if "result" not in wire.call("getModelInfo", lookup):
                return
            time.sleep(IDLE_PAUSE)


def reload_under_reference(context: ProbeContext) -> None:
    identifier = context.new_identifier()
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, identifier))
        info = wire.result("getModelInfo", {"specifier": by_identifier(identifier), "throwIfNotFound": True})
        old = by_reference(info["instanceReference"])
        wire.stream("predict", prediction(old, GREETING, FEW))
        wire.call("unloadModel", {"identifier": identifier})
        wire.stream("predict", prediction(old, GREETING, FEW))
        wire.call("getModelInfo", {"specifier": old, "throwIfNotFound": True})
        wire.stream("loadModel", _load_parameter(context, identifier))
        wire.call("getModelInfo", {"specifier": old, "throwIfNotFound": True})


def look_up_by_names(context: ProbeContext) -> None:
    info = context.main.get_info()
    publisher, repository, *_ = [*info.path.split("/"), ""]
    queries = (
        {"identifier": info.model_key},
        {"identifier": info.model_key.upper()},
        {"identifier": info.path},
        {"identifier": info.identifier[:-1]},
        {"path": info.path},
        {"path": f"{publisher}/{repository}"},
        {"path": f"{publisher}/{repository}".upper()},
        {"path": publisher},
        {"domain": "llm", "identifier": info.identifier},
        {"vision": not info.vision, "identifier": info.identifier},
    )
    with context.wire() as wire:
        for query in queries:
            lookup = {"specifier": {"type": "query", "query": query}, "throwIfNotFound": False}
            wire.call("getModelInfo", lookup)


def list_two_instances(context: ProbeContext) -> None:
    context.load(SMALL)
    context.client.llm.list_loaded()


def read_load_config(context: ProbeContext) -> None:
    context.main.get_load_config()


def read_idle_instance(context: ProbeContext) -> None:
    identifier = context.new_identifier()
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, identifier))
        lookup = {"specifier": by_identifier(identifier), "throwIfNotFound": True}
        wire.call("getModelInfo", lookup)
        wire.call("getInstanceProcessingState", lookup)


def fill_context(context: ProbeContext) -> None:
    identifier = context.new_identifier()
    fields = {"llm.load.contextLength": ODD_LENGTH, "llm.load.numParallelSessions": 1}
    until_full = {"llm.prediction.contextOverflowPolicy": "stopAtLimit"}
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, identifier, loadConfigStack=config_stack(fields)))
        wire.call("getModelInfo", {"specifier": by_identifier(identifier), "throwIfNotFound": True})
        wire.call("getLoadConfig", {"specifier": by_identifier(identifier)})
        wire.stream("predict", prediction(by_identifier(identifier), PATTERN, 2 * OVERFLOWING, until_full))


def estimate_usage(context: ProbeContext) -> None:
    for length, slots in ESTIMATED:
        context.client.llm.estimate_usage(
            context.model_key, config={"context_length": length, "max_parallel_predictions": slots}
        )


def _use_device(context: ProbeContext, to_load: str, to_unload: str, device: str | None) -> None:
    where = {"deviceIdentifier": device}
    load = _load_parameter(context, to_load, **where)
    with context.wire() as wire:
        wire.stream("loadModel", load)
        wire.call("estimateModelUsage", {name: load[name] for name in ("modelKey", "loadConfigStack")} | where)
        wire.call("unloadModel", {"identifier": to_unload, **where})


def use_own_device(context: ProbeContext) -> None:
    identifier = context.new_identifier()
    _use_device(context, identifier, identifier, None)


def use_unknown_device(context: ProbeContext) -> None:
    _use_device(context, context.new_identifier(), context.load(SMALL).identifier, "lmsi-probe-none")


def read_base_prediction_config(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.call("getBasePredictionConfig", {"specifier": context.reference})


def read_state_of_unknown_instance(context: ProbeContext) -> None:
    with context.wire() as wire:
        parameter = {"specifier": by_identifier("lmsi-probe-none"), "throwIfNotFound": False}
        wire.call("getInstanceProcessingState", parameter)
