"""Questions of the probe about loading, finding and describing models."""

import time
from functools import partial
from typing import Any

from lmstudio_integrations.types.config_dicts import LlmLoadModelConfigDict
from tools.probe.context import SMALL, TTL, ProbeContext
from tools.probe.predicting import PATTERN
from tools.probe.question import Question, register
from tools.probe.wire import by_identifier, by_reference, config_stack, prediction

QUESTIONS: list[Question] = []
question = partial(register, QUESTIONS)


def _load_parameter(context: ProbeContext, **members: Any) -> dict[str, Any]:
    return {
        "modelKey": context.model_key,
        "identifier": context.new_identifier(),
        "ttlMs": round(TTL * 1000),
        "loadConfigStack": config_stack({"llm.load.contextLength": 256}),
        **members,
    }


@question("load", "load-model", "Which packets does a load send, and what does it report?")
def load_main(context: ProbeContext) -> None:
    context.client.llm.list_downloaded()  # what the server says of the file
    context.reference  # noqa: B018 - the instance has been loaded now, and described


@question("default-identifier", "load-model", "Which identifier does an instance get that requests none?")
def load_without_identifier(context: ProbeContext) -> None:
    instance = context.client.llm.load_new_instance(context.model_key, ttl=TTL, show_progress=False)
    context.own.add(instance.identifier)


@question("taken-identifier", "load-model", "Which error reports an identifier that exists already?")
def load_with_taken_identifier(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, identifier=context.main.identifier))


@question("unknown-model", "load-model", "Which error reports a model that does not exist?")
def load_unknown_model(context: ProbeContext) -> None:
    with context.wire() as wire:
        wire.stream("loadModel", _load_parameter(context, modelKey="lmsi-probe/no-such-model"))


@question("canceled-load", "load-model", "How does a canceled load end?")
def cancel_load(context: ProbeContext) -> None:
    with context.wire() as wire:
        load = wire.open("loadModel", _load_parameter(context))
        wire.cancel(load)
        wire.finish(load)


@question("idle-ttl", "idle-ttl", "When does an instance disappear that was loaded with a TTL?")
def wait_for_idle_ttl(context: ProbeContext) -> None:
    identifier = context.load(SMALL, ttl=0.3).identifier
    with context.wire() as wire:
        for _ in range(40):  # ten seconds
            if not wire.call("getModelInfo", {"specifier": by_identifier(identifier), "throwIfNotFound": False}):
                return
            time.sleep(0.25)


@question("idle-instance", "model-info", "When was an instance used last that was only loaded, and which state has it?")
def read_idle_instance(context: ProbeContext) -> None:
    instance = context.load(SMALL)
    instance.get_info()
    lookup = {"specifier": by_identifier(instance.identifier), "throwIfNotFound": True}
    context.call("getInstanceProcessingState", lookup)


@question(
    "real-context-length", "get-load-config", "Do info and load settings have the context length that a response fills?"
)
def fill_context(context: ProbeContext) -> None:
    # An engine may round such a length.
    instance = context.load({"context_length": 300, "max_parallel_predictions": 1})
    instance.get_info()
    instance.get_load_config()
    instance.respond(PATTERN, config={"max_tokens": 800, "context_overflow_policy": "stopAtLimit"})


@question("instance-reference", "model-specifiers", "What becomes of a reference if its instance is reloaded?")
def reload_under_reference(context: ProbeContext) -> None:
    instance = context.load(SMALL)
    old = by_reference(instance.get_info().instance_reference)
    with context.wire() as wire:
        wire.stream("predict", prediction(old))
        wire.call("unloadModel", {"identifier": instance.identifier})
        wire.stream("predict", prediction(old))
        wire.call("getModelInfo", {"specifier": old, "throwIfNotFound": True})
        context.load(SMALL, instance.identifier)
        wire.call("getModelInfo", {"specifier": old, "throwIfNotFound": True})


@question("model-matching", "model-matching", "Which names and paths find a loaded instance?")
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
            wire.call("getModelInfo", {"specifier": {"type": "query", "query": query}, "throwIfNotFound": False})


@question("list-order", "list-loaded", "In which order are loaded instances listed?")
def list_two_instances(context: ProbeContext) -> None:
    context.load(SMALL)
    context.client.llm.list_loaded()


@question(
    "processing-state-of-none", "get-instance-processing-state", "What is the state of an instance that is not loaded?"
)
def read_state_of_unknown_instance(context: ProbeContext) -> None:
    lookup = {"specifier": by_identifier("lmsi-probe-none"), "throwIfNotFound": False}
    context.call("getInstanceProcessingState", lookup)


@question(
    "base-prediction-config", "get-base-prediction-config", "Which prediction settings are an instance's defaults?"
)
def read_base_prediction_config(context: ProbeContext) -> None:
    context.call("getBasePredictionConfig", {"specifier": context.reference})


@question("load-config", "get-load-config", "Which load settings does an instance report?")
def read_load_config(context: ProbeContext) -> None:
    context.main.get_load_config()


@question(
    "model-usage", "estimate-model-usage", "How do estimates depend on the context length and the parallel predictions?"
)
def estimate_usage(context: ProbeContext) -> None:
    for length, slots in ((2048, 1), (4096, 1), (8192, 1), (4096, 4)):
        config: LlmLoadModelConfigDict = {"context_length": length, "max_parallel_predictions": slots}
        context.client.llm.estimate_usage(context.model_key, config=config)


@question("own-device", "load-model", "May a request name the server's own machine by null?", device=None)
@question("unknown-device", "link-devices", "Which error reports a device that is unknown?", device="lmsi-probe-none")
def use_device(context: ProbeContext, device: str | None) -> None:
    load = _load_parameter(context, deviceIdentifier=device)
    to_unload = load["identifier"] if device is None else context.load(SMALL).identifier  # always a loaded one
    estimate = {name: load[name] for name in ("modelKey", "loadConfigStack", "deviceIdentifier")}
    with context.wire() as wire:
        wire.stream("loadModel", load)
        wire.call("estimateModelUsage", estimate)
        wire.call("unloadModel", {"identifier": to_unload, "deviceIdentifier": device})
