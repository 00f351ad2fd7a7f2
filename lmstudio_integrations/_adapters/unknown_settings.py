"""What an error says of settings that an adapter does not have, which may be those of other packages: what to write.

One error names all of them, because a program that is moved from another package has several.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.secrets import HIDDEN, holds_secret
from lmstudio_integrations._support.suggestions import (
    DICTS_OF_SETTINGS,
    NAME_CUTOFF,
    closest_names,
    counterpart,
    explain_unknown_setting,
)
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_mapping, is_number
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._numbers import seconds_remedy
from lmstudio_integrations.types._prediction_settings import AdapterPredictionSettings, NativePredictionSettings
from lmstudio_integrations.types.config import EmbeddingLoadModelConfig, LlmLoadModelConfig, LlmPredictionConfig

_WITHOUT_COUNTERPART = """
    api_version async_client client is_chat_model include mirostat mirostat_eta mirostat_tau modalities organization
    openai_organization prompt_cache_key prompt_key repeat_last_n reuse_client service_tier
    should_use_structured_outputs store strict tfs_z tiktoken_model_name use_responses_api user verbosity
"""
"""Settings of the classes that the pages on migration are about, which mean nothing here."""

_SCHEMA = "use with_structured_output(schema), in LlamaIndex as_structured_llm; or pass response_format=… to the call"

_OTHER_PLACES = {
    **dict.fromkeys(_WITHOUT_COUNTERPART.split(), "remove it"),
    **dict.fromkeys(("format", "json_mode"), _SCHEMA),
    **dict.fromkeys(("http_client", "http_async_client"), "remove it; for certificates of your own, write ca_file=…"),
    "allow_private_image_hosts": "write allow_image_download='private'",
    "evict": "write load_policy='fit_any'",
    "extra": "write prediction_config={'raw': …}",
    "stream_usage": "remove it; the last chunk of a stream always has the token counts",
    "tokenizer": "remove it; in LlamaIndex write Settings.tokenizer = LMStudioTokenizer(llm)",
    "validate_model_on_init": "remove it, and call load(), which fails if there is no such model",
}

_VALUES: Mapping[str, Mapping[object, str]] = {
    "n_gpu_layers": {-1: "max", 0: "off"},
    "gpu_layers": {0: "off"},
    "num_gpu": {0: "off"},
    "truncation": {"auto": "rollingWindow", "disabled": "stopAtLimit"},
}
"""The values of settings of other packages that mean the same as one of ours. Theirs count layers, ours is a share."""

_LANGUAGE_ONLY = {
    *LlmPredictionConfig.model_fields,
    *AdapterPredictionSettings.model_fields,
    *("prediction_config", "stop", "check_context", "stop_on_repetition", "streaming"),
}
"""Settings that embedding models do not have."""


def unknown_settings(
    names: Sequence[str], known: Collection[str], given: Mapping[str, Any], owner: str
) -> LMStudioValueError:
    """Return the error about unknown settings.

    Args:
        names: Their names.
        known: The known names.
        given: All settings that are given, by their names.
        owner: The name of the adapter's class.
    """
    if len(names) == 1 and _is_of_language_models(names[0], known):
        return LMStudioValueError(f"{names[0]!r} {_OF_LANGUAGE_MODELS}")
    remedies: dict[str, list[str]] = {}
    entries: dict[str, dict[str, str]] = {}
    for name in names:
        place, remedy = _remedy(name, known, given, owner)
        if place is not None:
            entries.setdefault(place, {})[name] = remedy
        else:
            remedies.setdefault(remedy, []).append(name)
    for place, written in entries.items():
        together = ", ".join(sorted(written.values())).replace("}, 'gpu': {", ", ")  # one key holds all of them
        remedies[f"write {place}={{{together}}}"] = [*written]
    if len(names) == 1:
        return LMStudioValueError(f"unknown setting {names[0]!r}; {next(iter(remedies))}")
    lines = [f"\n  {', '.join(of)}: {remedy}" for remedy, of in remedies.items()]
    return LMStudioValueError(f"unknown settings{''.join(lines)}")


_OF_LANGUAGE_MODELS = "is a setting of language models, and this is an embedding model; remove it"


def _is_of_language_models(name: str, known: Collection[str]) -> bool:
    is_embedding = "length_policy" in known and counterpart(name, known) is None
    return is_embedding and counterpart(name, _LANGUAGE_ONLY) is not None


def _remedy(name: str, known: Collection[str], given: Mapping[str, Any], owner: str) -> tuple[str | None, str]:
    """Return what to write for a setting, and the field that has it as an entry, if it is no field."""
    if _is_of_language_models(name, known):
        return None, _OF_LANGUAGE_MODELS
    value = given[name]
    remedy = _OTHER_PLACES.get(name) or _of_value(name, value, known) or _settings_in(name, value, known)
    if remedy is not None:
        return None, remedy
    own = counterpart(name, known)
    if own is not None:
        return None, f"did you mean {own!r}? {_written(name, own, value)}".rstrip()
    return _entry(name, value, known) or (None, explain_unknown_setting(name, known, given, owner))


def _of_value(name: str, value: object, known: Collection[str]) -> str | None:
    """Return what to write for a value of a setting that is another one here; `None` for any other name."""
    if name in {"n", "best_of"}:
        if value in (None, 1):
            return "remove it"
        return f"a call has one response; make {shown(value)} calls, in LangChain batch([prompt] * {shown(value)})"
    if name in {"timeout", "request_timeout"} and "timeouts" in known:
        return f"for a whole call, write timeouts={{'total_timeout': {shown(value)}}}"
    effort = value.get("effort") if is_mapping(value) else value
    if name in {"reasoning", "think", "thinking"} and isinstance(effort, str) and "reasoning_effort" in known:
        return f"write reasoning_effort={shown(effort)}"
    return None


def _settings_in(name: str, entries: object, known: Collection[str]) -> str | None:
    """Return how the entries of another package's dict of settings are written here; `None` for anything else."""
    if name not in DICTS_OF_SETTINGS:
        return None
    written = [
        f"{counterpart(str(key), known) or key}={HIDDEN if holds_secret(value, str(key)) else shown(value)}"
        for key, value in (entries.items() if is_mapping(entries) else ())
    ]
    if entries == {}:
        return "remove it"
    return f"write its entries as settings{': ' if written else ''}{', '.join(written)}"


def _written(name: str, own: str, value: object) -> str:
    """Return the line to write for a setting under our name; empty if its value is secret, or another one here."""
    if own in {"host", "api_token", "headers"} or holds_secret(value, name):
        return ""
    if own == "ttl" and value == 0:
        return "Write unload_on_close=True"
    if own == "ttl" and value in (-1, "-1"):
        return "Write load_policy='explicit', ttl=math.inf"
    if own == "ttl" and not is_number(value):
        return seconds_remedy(own, value).capitalize()
    if own == "max_tokens" and is_number(value) and value < 0:
        return "Remove it: there is no limit by default"
    return f"Write {own}={shown(value)}"


def _places(known: Collection[str]) -> Mapping[str, Collection[str]]:
    """Return the fields that hold settings which are no fields, with the names of those."""
    load_config = EmbeddingLoadModelConfig if "length_policy" in known else LlmLoadModelConfig
    return {
        "timeouts": TIMEOUTS.keys(),
        "prediction_config": NativePredictionSettings.model_fields.keys()
        | {"context_overflow_policy", "prompt_template"},
        "load_config": load_config.model_fields.keys() - {"raw"},
    }


def _entry(name: str, value: object, known: Collection[str]) -> tuple[str, str] | None:
    """Return the field that has a setting, or one whose name resembles it, as an entry, and that entry."""
    for place, names in _places(known).items():
        own = counterpart(name, names) if place in known else None
        if own is None and place in known and not closest_names(name, known, cutoff=NAME_CUTOFF):
            own = next(iter(closest_names(name, names, cutoff=NAME_CUTOFF)), None)
        if own is not None:
            return place, f"{own!r}: {HIDDEN if holds_secret(value, name) else _value_here(name, own, value)}"
    return None


def _value_here(name: str, own: str, value: object) -> str:
    """Return how the value of a setting is written here; a word in capitals stands for one without a counterpart."""
    if own == "gpu" and name == "main_gpu":
        return f"{{'main_gpu': {shown(value)}}}"
    if own not in {"gpu", "context_overflow_policy"} or is_mapping(value):
        return shown(value)
    if name in _VALUES:
        same = (ours for theirs, ours in _VALUES[name].items() if type(theirs) is type(value) and theirs == value)
        value = next(same, None)
    if own == "context_overflow_policy":
        return "POLICY" if value is None else shown(value)
    is_ratio = 0 <= value <= 1 if is_number(value) else isinstance(value, str) and value in {"max", "off"}
    return f"{{'ratio': {shown(value) if is_ratio else 'SHARE_OF_LAYERS'}}}"
