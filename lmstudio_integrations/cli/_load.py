"""`load`: gets or loads a model."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmstudio_integrations.cli._common import (
    AsJson,
    Host,
    OnDevice,
    Token,
    note,
    print_json,
    progress_bar,
    results,
    warnings_as_notes,
)
from lmstudio_integrations.cli._completion import downloaded_keys
from lmstudio_integrations.cli._formatting import duration, file_size, instance_name
from lmstudio_integrations.cli._warm import process, read_prefix

if TYPE_CHECKING:
    from lmstudio_integrations.cli._model_names import FoundModel
    from lmstudio_integrations.client.api.sync import LLM, Client, EmbeddingModel
    from lmstudio_integrations.types.config import LoadSettings
    from lmstudio_integrations.types.models import ModelInstanceInfo, ModelUsageEstimate

Config = dict[str, Any]

_EVICTIONS = {
    "get_or_load": "(Auto-Evict); with --explicit, a model evicts no other",
    "fit": "(--fit), as they do not fit into the memory together",
}
"""Why a load evicts others, by its policy."""

_GPU_WORDS = {"off": 0.0, "max": 1.0}


def load(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Key or path, or a part of it.",
            show_default=False,
            autocompletion=downloaded_keys,
        ),
    ] = None,
    *,
    ttl: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=1, help="Unload it after this many idle seconds.", show_default=False),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option("--context-length", "-c", metavar="TOKENS", min=1, help="Context length.", show_default=False),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="RATIO",
            help="Share of the model on the GPU: off, max, or a number from 0 to 1.",
            show_default=False,
        ),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Load another instance, with this identifier.", show_default=False),
    ] = None,
    explicit: Annotated[
        bool, typer.Option("--explicit", help="Load it so that it evicts no other model, and none evicts it.")
    ] = False,
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Like --explicit, but first evict the idle models that do not fit beside it."),
    ] = False,
    device: OnDevice = None,
    warm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Process this system prompt, or these messages and tools as JSON, ahead of the first question.",
            show_default=False,
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Accept only a full name.")] = False,
    estimate_only: Annotated[
        bool, typer.Option("--estimate-only", help="Print how much memory it would need, and do not load it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Load the first of several models that match.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """Load a model, unless it is loaded, and print its identifier.

    The model is loaded just in time, as by the classes for LangChain and LlamaIndex. With Auto-Evict, which is LM
    Studio's default, the server then unloads other models that were loaded just in time. A model that is loaded with
    --explicit evicts no other, and stays until it is unloaded. With --fit, it evicts what does not fit into the memory
    beside it, the least recently used first, but no model that was loaded without a TTL.
    """
    from lmstudio_integrations.cli._loaded_models import find_downloaded  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    if identifier is not None and not identifier.strip():
        raise typer.BadParameter("the name is empty", param_hint="--identifier")
    if fit and (explicit or identifier is not None):
        raise typer.BadParameter("--explicit and --identifier evict nothing; leave them out", param_hint="--fit")
    config = load_config(context_length, gpu)
    prefix = None if warm is None else read_prefix(warm)
    with Client(host, token) as client, warnings_as_notes():
        match = find_downloaded(client, model, device=device, exact=exact, first=yes)
        if warm is not None and match.info.type != "llm":
            raise typer.BadParameter(f"{match.name} is an embedding model, which has no prompts", param_hint="--warm")
        if estimate_only:
            print_estimate(estimate(client, match, config, device), as_json=as_json)
            return
        parameters = load_parameters(identifier, ttl, explicit=explicit, fit=fit)
        info = load_found(client, match, config, {**parameters, "device": device}, identifier)
        if warm is not None and prefix is not None:
            process(client, info, warm, prefix, device)
    if as_json:
        print_json(info.to_dict())
    else:
        results().write_line(info.identifier)


def load_config(context_length: int | None, gpu: str | None) -> Config:
    """Return the load settings that are set."""
    config: Config = {} if context_length is None else {"context_length": context_length}
    return config if gpu is None else {**config, "gpu": {"ratio": gpu_ratio(gpu)}}


def gpu_ratio(text: str) -> float:
    """Return the share of a model on the GPU."""
    try:
        ratio = _GPU_WORDS.get(text.strip().lower())
        ratio = float(text) if ratio is None else ratio
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise typer.BadParameter(f"{text!r} is not off, max, or a number from 0 to 1", param_hint="--gpu")
    return ratio


def load_parameters(identifier: str | None, ttl: int | None, *, explicit: bool, fit: bool) -> dict[str, Any]:
    """Return how to load. Without a TTL, an explicit load has no end, as in LM Studio's own command."""
    if identifier is not None:
        return {"load_policy": "new_instance", "ttl": ttl}
    if explicit or fit:
        return {"load_policy": "fit" if fit else "explicit", "ttl": math.inf if ttl is None else ttl}
    return {"load_policy": "get_or_load", "ttl": ttl}


def load_found(
    client: "Client", model: "FoundModel", config: Config, parameters: dict[str, Any], identifier: str | None
) -> "ModelInstanceInfo":
    """Get or load a model with a progress bar; warn if it has other settings than requested."""
    from lmstudio_integrations.cli._loaded_models import evicted_since, identifiers, namespace_of  # noqa: PLC0415 - slow

    models: Any = namespace_of(client, model.info)
    load_it = models.model if identifier is None else models.load_new_instance
    names = (model.name,) if identifier is None else (model.name, identifier)
    before = identifiers(client)
    started = time.monotonic()
    with progress_bar(f"Loading {model.name}") as show:
        handle: LLM | EmbeddingModel = load_it(
            *names, config=config or None, on_config_mismatch="ignore", on_load_progress=show, **parameters
        )
        show(1.0)
    info = handle.get_info()
    is_new = info.instance_reference not in before
    if is_new:
        details = [file_size(info.size_bytes)] if info.size_bytes else []
        note(f"Loaded {info.identifier} ({', '.join([*details, duration(time.monotonic() - started)])}).")
    else:
        note(f"{instance_name(info)} is already loaded.")
    # Other loads do not evict; what else is gone now was unloaded by others.
    why = _EVICTIONS.get(parameters["load_policy"])
    if why and (evicted := evicted_since(client, before)):
        note(f"It evicted {evicted} {why}.")
    ttl = None if is_new else parameters["ttl"]
    if (config or ttl) and (others := other_settings(config, ttl, info, handle.get_load_config())):
        note(f"Warning: {info.identifier} has other settings than requested: {others}; {_suggestion(info, config)}")
    return info


def other_settings(config: Config, ttl: float | None, info: "ModelInstanceInfo", actual: "LoadSettings") -> str:
    """Return the settings of a loaded model that are not the requested ones; unknown ones cannot be compared."""
    ratio = actual.gpu and actual.gpu.ratio
    real_ttl = math.inf if info.ttl_ms is None else info.ttl_ms / 1000
    pairs = {
        "context length": (config.get("context_length"), actual.context_length),
        "GPU ratio": (config.get("gpu", {}).get("ratio"), _GPU_WORDS.get(str(ratio), ratio)),
        "TTL": (None if ttl is None else _time_to_live(ttl), _time_to_live(real_ttl)),
    }
    return ", ".join(
        f"{name} {real} instead of {value}"
        for name, (value, real) in pairs.items()
        if value is not None and real is not None and value != real
    )


def _time_to_live(seconds: float) -> str:
    return "none" if math.isinf(seconds) else duration(seconds)


def _suggestion(info: "ModelInstanceInfo", config: Config) -> str:
    if config.get("context_length", 0) > info.max_context_length:
        return f"its longest context length is {info.max_context_length}"
    return f"to change them, unload it first: lmsi unload {info.identifier}"


def estimate(client: "Client", model: "FoundModel", config: Config, device: str | None) -> "ModelUsageEstimate":
    """Return how much memory a model would need."""
    from lmstudio_integrations.cli._loaded_models import namespace_of  # noqa: PLC0415 - slow

    models: Any = namespace_of(client, model.info)
    usage: ModelUsageEstimate = models.estimate_usage(model.name, config=config or None, device=device)
    return usage


def print_estimate(usage: "ModelUsageEstimate", *, as_json: bool) -> None:
    """Print how much memory a model would need."""
    if as_json:
        print_json(usage.to_dict())
        return
    memory = usage.memory
    console = results()
    console.write_line(f"GPU memory:   {file_size(memory.total_vram_bytes)}")
    console.write_line(f"Total memory: {file_size(memory.total_bytes)}")
    console.write_line(f"Confidence:   {memory.confidence}")
    console.write_line(f"Permitted:    {'yes' if usage.passes_guardrails else 'no, by the guardrails of the server'}")
