"""Suggest which name was probably meant by an unknown one: a similar one, or what another package's setting is here."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice

_MOST_NAMES, _LONGEST_NAME = 128, 128
"""The most names that are compared, and the most characters of one: a comparison takes quadratic time."""

_MOST_LISTED = 16
"""The most known names that an error lists, if their class has a help page."""

_NOTHING: Mapping[str, object] = {}
_PLAIN_HOST, _PLAIN_PORT = r"[A-Za-z0-9.-]{1,253}", r"[0-9]{1,5}"

NAME_CUTOFF = 0.75
"""How similar a mistyped setting must be, 0 to 1; `max_tokens` and `api_token` are less."""

_NAMES_ELSEWHERE = {
    "host": "api_base base_url openai_api_base ollama_base_url",
    "api_host": "api_base base_url host",
    "api_token": "api_key openai_api_key",
    "headers": "default_headers extra_headers additional_headers",
    "model": "deployment model_id",
    "max_tokens": "max_completion_tokens max_new_tokens max_output_tokens num_output num_predict",
    "context_length": "context_size context_window ctx_size n_ctx num_ctx",
    "context_overflow_policy": "truncation",
    "ttl": "keep_alive",
    "idle_timeout": "request_timeout stream_chunk_timeout timeout",
    "cpu_threads": "num_thread n_threads",
    "gpu": "gpu_offload gpu_layers n_gpu_layers num_gpu main_gpu",
    "eval_batch_size": "n_batch num_batch",
    "keep_model_in_memory": "use_mlock",
    "try_mmap": "use_mmap",
    "log_probs": "logprobs top_logprobs",
    "enable_thinking": "reasoning think thinking",
    "repeat_penalty": "repetition_penalty",
    "stop": "stop_sequences",
    "stop_strings": "stop stop_sequences",
    "streaming": "stream",
    "system_prompt": "system",
    "top_k": "topK",
    "top_k_sampling": "top_k topK",
    "top_p": "topP",
    "top_p_sampling": "top_p topP",
    "min_p_sampling": "min_p",
    "embed_batch_size": "batch_size chunk_size",
}
"""Our settings, and their names in other packages. The first one that is known where the name was given counts."""

DICTS_OF_SETTINGS = frozenset(
    {"additional_kwargs", "client_kwargs", "extra_body", "model_kwargs", "ollama_additional_kwargs", "options"}
)
"""Names of dicts in other packages that hold what are settings here."""

_OTHER_NAMES = {*DICTS_OF_SETTINGS, *(name for names in _NAMES_ELSEWHERE.values() for name in names.split())}

_MISPLACED = {
    ("try_mmap", "temperature"): "it is a setting of a response, not of loading: pass it to each call",
    ("try_mmap", "max_tokens"): "it is a setting of a response, not of loading: pass it to each call",
    ("stop_strings", "context_length"): (
        "it takes effect while the model loads: pass it where the model is loaded, in client.llm.model"
    ),
    ("raw_tools", "tools"): "pass them to act(), which runs them",
    ("load_config", "reasoning_effort"): "chat models have it",
}
"""What helps if a setting is given to the other config, or to another adapter; one setting that it has is named."""


def closest_names(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the names most similar to an unknown one, among the first 128 of up to 128 characters.

    If some of them begin with it, the others are no misspellings of it, and are left out.

    Args:
        name: The unknown name.
        known: The known names.
        most: The most names to return.
        cutoff: How similar they must be, 0 to 1.
    """
    if len(name) > _LONGEST_NAME:
        return []
    names = [each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    similar = get_close_matches(name, names, n=max(len(names), 1), cutoff=cutoff)
    return ([each for each in similar if each.lower().startswith(name.lower())] or similar)[:most]


def explain_unknown_setting(
    name: str,
    known: Collection[str],
    values: Mapping[str, object] = _NOTHING,
    owner: str = "",
    *,
    in_config: Collection[str] = (),
) -> str:
    """Return the end of an error about an unknown setting, which may be one of another package.

    Args:
        name: The unknown name.
        known: The known names.
        values: What was given, by name.
        owner: The class whose `help` lists the known names, if they are many.
        in_config: The settings of the argument `config`, if there is one.
    """
    address = next((own for own in ("host", "api_host") if own in known), None)
    if name == "port" and address is not None:
        return f"write {address}='{_host(values.get(address))}:{_port(values.get(name))}'"
    meant = counterpart(name, known)
    if meant is not None:
        return f"did you mean {meant!r}?"
    setting = counterpart(name, in_config)
    if setting is not None:
        return f"write config={{{setting!r}: …}}"
    for (other, misplaced), remedy in _MISPLACED.items():
        if misplaced == name and other in {*known, *in_config}:
            return remedy
    if name in _OTHER_NAMES:  # no misspelling, so the nearest name means something else
        return _known_names(known, owner)
    return explain_unknown_name(name, known, owner, in_config=in_config)


def counterpart(name: str, known: Collection[str]) -> str | None:
    """Return the known name for a setting, which may be one of another package; `None` if there is none."""
    if name in known:
        return name
    return next((own for own, names in _NAMES_ELSEWHERE.items() if own in known and name in names.split()), None)


def explain_unknown_name(name: str, known: Collection[str], owner: str = "", *, in_config: Collection[str] = ()) -> str:
    """Return the end of an error about an unknown name: the nearest known one, or the known ones.

    Args:
        name: The unknown name.
        known: The known names.
        owner: The class whose `help` lists the known names, if they are many.
        in_config: The settings of the argument `config`, if there is one.
    """
    for names, text in ((known, "{!r}"), (in_config, "config={{{!r}: …}}")):
        for nearest in closest_names(name, names, cutoff=NAME_CUTOFF):
            return f"did you mean {text.format(nearest)}?"
    return _known_names(known, owner)


def _known_names(known: Collection[str], owner: str) -> str:
    if owner and len(known) > _MOST_LISTED:
        return f"help({owner}) lists the known ones"
    return f"known are {', '.join(sorted(known))}"


def _host(host: object) -> str:
    """Return a host to show beside a port; an address with more than that is not repeated."""
    return host if isinstance(host, str) and re.fullmatch(_PLAIN_HOST, host) else "127.0.0.1"


def _port(port: object) -> str:
    return str(port) if isinstance(port, int | str) and re.fullmatch(_PLAIN_PORT, str(port)) else "PORT"
