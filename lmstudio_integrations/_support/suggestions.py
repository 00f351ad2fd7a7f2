"""Suggest which name was probably meant by an unknown one; for a setting of another package, what replaces it."""

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
    "extra_headers": ("headers",),
    "additional_headers": ("headers",),
    "max_completion_tokens": ("max_tokens",),
    "max_new_tokens": ("max_tokens",),
    "max_output_tokens": ("max_tokens",),
    "num_output": ("max_tokens",),
    "num_predict": ("max_tokens",),
    "context_size": ("context_length",),
    "context_window": ("context_length",),
    "ctx_size": ("context_length",),
    "n_ctx": ("context_length",),
    "num_ctx": ("context_length",),
    "num_thread": ("cpu_threads",),
    "n_threads": ("cpu_threads",),
    "n_batch": ("eval_batch_size",),
    "num_batch": ("eval_batch_size",),
    "use_mlock": ("keep_model_in_memory",),
    "use_mmap": ("try_mmap",),
    "logprobs": ("log_probs",),
    "top_logprobs": ("log_probs",),
    "thinking": ("enable_thinking",),
    "repetition_penalty": ("repeat_penalty",),
    "stop": ("stop_strings",),
    "stop_sequences": ("stop", "stop_strings"),
    "stream": ("streaming",),
    "stream_chunk_timeout": ("idle_timeout",),
    "system": ("system_prompt",),
    "top_k": ("top_k_sampling",),
    "top_p": ("top_p_sampling",),
    "min_p": ("min_p_sampling",),
    "topK": ("top_k", "top_k_sampling"),
    "topP": ("top_p", "top_p_sampling"),
    "truncation": ("context_overflow_policy",),
    "deployment": ("model",),
    "model_id": ("model",),
    "batch_size": ("embed_batch_size",),
    "chunk_size": ("embed_batch_size",),
}
"""Names in other packages, and ours for the same. The first one that is known where the name was given counts."""

_NAMES_BY_REMEDY = {
    "extra": {
        "it is an argument of a call of a chat model, not of the object; pass it there": (
            "parallel_tool_calls response_format tool_choice tools"
        ),
        "write tools=… and tool_choice=… in a call of a chat model": "functions function_call",
        "request JSON for a call of a chat model, with response_format={'type': 'json_object'} or a schema": (
            "format json_mode json_schema"
        ),
        "structured output follows its schema exactly anyway; remove it": "should_use_structured_outputs strict",
        "write enable_thinking=True or False, or reasoning_effort='low'; chat models have them": (
            "reasoning think thinking"
        ),
        "chat models have it": "logprobs reasoning_effort top_logprobs",
        "put it into the messages of a chat model, which keeps nothing between calls": (
            "context images instructions system"
        ),
        "models respond with text here; remove it": "audio audio_config height modalities steps width",
        "call the method that streams, such as stream_chat()": "stream",
        "each stream ends with its token counts; remove it": "stream_options",
        "for several responses, call the model several times": "n best_of",
        "write wire keys without a name here in extra={…}": "raw",
    },
    "load_config": {
        "write load_config={'gpu': {'ratio': 0.5}} for half of the layers": (
            "gpu gpu_offload gpu_layers n_gpu_layers num_gpu"
        ),
        "write load_config={'gpu': {'main_gpu': 0}}": "main_gpu",
        "write load_config={'eval_batch_size': 512}": "n_batch num_batch",
        "write load_config={'keep_model_in_memory': True}": "use_mlock",
        "write load_config={'try_mmap': True}": "use_mmap",
        "write ttl=300 for '5m'; it is in seconds": "keep_alive",
        "call load(), which also loads the model": "validate_model_on_init",
        "prompts and texts are sent in parallel, as many as the model allows; remove it": "batch_size chunk_size",
    },
    "host": {
        "vectors have the length that the model gives them; remove it": "dimensions",
        "write first_token_timeout=60 and idle_timeout=60 for a silent server, or timeout=60 for the whole call": (
            "request_timeout"
        ),
        "write each of its entries as a setting of its own; language models take wire keys without a name here in"
        " extra": ("additional_kwargs extra_body model_kwargs ollama_additional_kwargs options"),
        "set the environment variable HTTPS_PROXY or HTTP_PROXY": "openai_proxy",
        "this package uses LM Studio's WebSocket API, not HTTP; remove it, or write headers={…} for headers and"
        " idle_timeout=60 for the time between two packets": (
            "client async_client root_client root_async_client openai_client async_openai_client reuse_client"
            " http_client http_async_client async_http_client http_socket_options include_response_headers"
            " client_kwargs async_client_kwargs sync_client_kwargs default_query extra_query use_responses_api"
            " api_version openai_api_type openai_api_version organization openai_organization"
        ),
        "LM Studio knows it of each model; remove it": (
            "is_chat_model is_embedding_model is_function_calling_model prompt_key template tokenizer"
            " allowed_special disallowed_special tiktoken_enabled tiktoken_model_name"
            " check_embedding_ctx_length embedding_ctx_length"
        ),
        "LM Studio decides it when it loads the model; remove it": (
            "embedding_only f16_kv logits_all low_vram n_threads num_thread numa vocab_only"
        ),
        "LM Studio's SDKs have no such setting; remove it": (
            "mirostat mirostat_eta mirostat_tau num_keep penalize_newline repeat_last_n tfs_z typical_p"
            " disabled_params echo mode retry_max_seconds retry_min_seconds skip_empty suffix"
        ),
        "OpenAI's servers have it, LM Studio does not; remove it": (
            "background context_management conversation include max_tool_calls metadata moderation prediction"
            " previous_response_id prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier"
            " service_tier store use_previous_response_id user verbosity web_search_options"
        ),
    },
    "try_mmap": {
        "write gpu={'ratio': 0.5} for half of the layers": "gpu_offload gpu_layers n_gpu_layers num_gpu",
        "write gpu={'main_gpu': 0}": "main_gpu",
        "it is a setting of a response, not of loading: pass it to each call": "temperature max_tokens",
    },
    "stop_strings": {
        "it takes effect while the model loads: pass it where the model is loaded, in client.llm.model": (
            "context_length"
        ),
    },
}
"""What to do in place of a setting that has no counterpart, by a name that is known where the remedy helps: in language
models, in all models, in all adapters; in the config of loading, and in that of a prediction."""

_REMEDIES = {
    needed: {name: remedy for remedy, names in rows.items() for name in names.split()}
    for needed, rows in _NAMES_BY_REMEDY.items()
}

LANGUAGE_MODEL_NAMES: Collection[str] = _REMEDIES["extra"].keys()
"""Settings of language models in other packages that have no counterpart here."""


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
    name: str, known: Collection[str], values: Mapping[str, object] = _NOTHING, owner: str = ""
) -> str:
    """Return the end of an error about an unknown setting, which may be one of another package.

    Args:
        name: The unknown name.
        known: The known names.
        values: What was given, by name.
        owner: The class whose `help` lists the known names, if they are many.
    """
    address = next((own for own in ("host", "api_host") if own in known), None)
    if name == "port" and address is not None:
        return f"write {address}='{_host(values.get(address))}:{_port(values.get(name))}'"
    meant = counterpart(name, known)
    if meant is not None:
        return f"did you mean {meant!r}?"
    remedies = {needed: by_name[name] for needed, by_name in _REMEDIES.items() if name in by_name}
    if remedies or name in _COUNTERPARTS:  # no misspelling, so the nearest name means something else
        return next((remedies[needed] for needed in remedies if needed in known), _known_names(known, owner))
    return explain_unknown_name(name, known, owner)


def counterpart(name: str, known: Collection[str]) -> str | None:
    """Return the known name for a setting, which may be one of another package; `None` if there is none.

    Args:
        name: The name of the setting.
        known: The known names.
    """
    return next((own for own in (name, *_COUNTERPARTS.get(name, ())) if own in known), None)


def explain_unknown_name(name: str, known: Collection[str], owner: str = "") -> str:
    """Return the end of an error about an unknown name: the nearest known one, or the known ones.

    Args:
        name: The unknown name.
        known: The known names.
        owner: The class whose `help` lists the known names, if they are many.
    """
    nearest = next(iter(closest_names(name, known, cutoff=_NAME_CUTOFF)), None)
    if nearest:
        return f"did you mean {nearest!r}?"
    return _known_names(known, owner)


def _known_names(known: Collection[str], owner: str) -> str:
    if owner and len(known) > _MOST_LISTED:
        return f"help({owner}) lists the known ones"
    return f"known are {', '.join(sorted(known))}"


def _host(host: object) -> str:
    """Return a host to show beside a port; an address with more than that is not repeated."""
    return host if isinstance(host, str) and _PLAIN_HOST.fullmatch(host) else "127.0.0.1"


def _port(port: object) -> str:
    return str(port) if isinstance(port, int | str) and _PLAIN_PORT.fullmatch(str(port)) else "PORT"
