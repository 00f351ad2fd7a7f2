"""Suggest which name was probably meant by an unknown one."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice

_MOST_NAMES, _LONGEST_NAME = 128, 128
"""The most names that are compared, and the most characters of one: a comparison takes quadratic time."""

_MOST_LISTED = 16
"""The most known names that an error lists, if their class has a help page."""

_NOTHING: Mapping[str, object] = {}
_PLAIN_HOST, _PLAIN_PORT = re.compile(r"[A-Za-z0-9.-]{1,253}"), re.compile(r"[0-9]{1,5}")

_NAME_CUTOFF = 0.75
"""How similar a mistyped setting must be, 0 to 1; `max_tokens` and `api_token` are less."""

_COUNTERPARTS = {
    "api_base": ("host", "api_host"),
    "base_url": ("host", "api_host"),
    "host": ("api_host",),
    "openai_api_base": ("host",),
    "ollama_base_url": ("host",),
    "api_key": ("api_token",),
    "openai_api_key": ("api_token",),
    "default_headers": ("headers",),
    "additional_headers": ("headers",),
    "keep_alive": ("ttl",),
    "max_completion_tokens": ("max_tokens",),
    "max_new_tokens": ("max_tokens",),
    "max_output_tokens": ("max_tokens",),
    "num_output": ("max_tokens",),
    "num_predict": ("max_tokens",),
    "additional_kwargs": ("extra",),
    "extra_body": ("extra",),
    "model_kwargs": ("extra",),
    "context_size": ("context_length",),
    "context_window": ("context_length",),
    "ctx_size": ("context_length",),
    "n_ctx": ("context_length",),
    "num_ctx": ("context_length",),
    "num_thread": ("cpu_threads",),
    "n_threads": ("cpu_threads",),
    "n_batch": ("eval_batch_size",),
    "num_batch": ("eval_batch_size",),
    "thinking": ("enable_thinking",),
    "reasoning_effort": ("reasoning_budget",),
    "repetition_penalty": ("repeat_penalty",),
    "request_timeout": ("timeout",),
    "stop": ("stop_strings",),
    "stop_sequences": ("stop", "stop_strings"),
    "top_k": ("top_k_sampling",),
    "top_p": ("top_p_sampling",),
    "min_p": ("min_p_sampling",),
    "topK": ("top_k", "top_k_sampling"),
    "topP": ("top_p", "top_p_sampling"),
    "model_id": ("model",),
    "chunk_size": ("embed_batch_size",),
    "validate_model_on_init": ("load()",),
}
"""Names in other packages, and ours for the same. The first one that is known where the name was given counts."""

_METHODS = {"load()"}
"""Names of ours that are no settings."""

_GPU = "write load_config={'gpu': {'ratio': 0.5}} for half of the layers, or gpu={'ratio': 0.5} in a load config"
_SCHEMA = "request JSON for a call of a chat model, with response_format={'type': 'json_object'} or a schema"
_ALWAYS_KNOWN = "LM Studio knows it of each model; remove it"
_NO_HTTP = (
    "this package uses LM Studio's WebSocket API, not HTTP; remove it, or write headers={…} for headers and"
    " idle_timeout=60 for the time between two packets"
)
_NOT_SET_HERE = "LM Studio's SDKs have no such setting; remove it"

_REMEDIES = {
    **dict.fromkeys(("gpu", "gpu_offload", "gpu_layers", "n_gpu_layers", "num_gpu"), _GPU),
    **dict.fromkeys(
        ("temperature", "max_tokens"), "it is a setting of a response, not of loading: pass it to each call"
    ),
    "context_length": "it takes effect while the model loads: pass it where the model is loaded, in client.llm.model",
    **dict.fromkeys(("format", "json_mode", "json_schema"), _SCHEMA),
    **dict.fromkeys(("is_chat_model", "is_function_calling_model", "prompt_key", "tokenizer"), _ALWAYS_KNOWN),
    **dict.fromkeys(("tiktoken_model_name", "check_embedding_ctx_length", "is_embedding_model"), _ALWAYS_KNOWN),
    **dict.fromkeys(
        ("http_client", "http_async_client", "async_http_client", "client_kwargs", "async_client_kwargs"), _NO_HTTP
    ),
    **dict.fromkeys(("sync_client_kwargs", "reuse_client", "api_version", "organization"), _NO_HTTP),
    **dict.fromkeys(("openai_organization", "use_responses_api", "default_query"), _NO_HTTP),
    **dict.fromkeys(("mirostat", "mirostat_eta", "mirostat_tau", "repeat_last_n", "tfs_z"), _NOT_SET_HERE),
    "reasoning": "write enable_thinking=True or False, or reasoning_effort='low'; chat models have them",
    "openai_proxy": "set the environment variable HTTPS_PROXY or HTTP_PROXY",
    **dict.fromkeys(("n", "best_of"), "for several responses, call the model several times, for example with batch()"),
}
"""What to do in place of a setting that has no counterpart here."""


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


def explain_unknown_name(
    name: str, known: Collection[str], values: Mapping[str, object] = _NOTHING, owner: str = ""
) -> str:
    """Return the end of an error about an unknown name: the name that was meant, or what helps, or the known names.

    Args:
        name: The unknown name.
        known: The known names.
        values: What was given, by name.
        owner: The class whose `help` lists the known names, if they are many.
    """
    address = next((own for own in ("host", "api_host") if own in known), None)
    if name == "port" and address is not None:
        return f"write {address}='{_host(values.get(address))}:{_port(values.get(name))}'"
    counterpart = next((own for own in _COUNTERPARTS.get(name, ()) if own in known or own in _METHODS), None)
    if counterpart is None and name in _REMEDIES:
        return _REMEDIES[name]
    nearest = counterpart or next(iter(closest_names(name, known, cutoff=_NAME_CUTOFF)), None)
    if nearest:
        return f"did you mean {nearest!r}?"
    if owner and len(known) > _MOST_LISTED:
        return f"help({owner}) lists the known ones"
    return f"known are {', '.join(sorted(known))}"


def _host(host: object) -> str:
    """Return a host to show beside a port; an address with more than that is not repeated."""
    return host if isinstance(host, str) and _PLAIN_HOST.fullmatch(host) else "127.0.0.1"


def _port(port: object) -> str:
    return str(port) if isinstance(port, int | str) and _PLAIN_PORT.fullmatch(str(port)) else "PORT"
