"""What helps with an error: the setting or the model that was meant, a command, or what is wrong with each value.

Pure texts, made of names and values. Whoever raises an error adds them: the types and the adapters to errors about
settings, `protocol/errors.py` to errors of the server, the transport to errors about addresses and tokens. Some run on
the thread that serves every call, so long names and lists are cut.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import PydanticUserError
from pydantic_core import ErrorDetails, ValidationError

from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE, TOKEN_VARIABLES
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_list, is_object

# Names of settings ----------------------------------------------------------------------------------------------------

_MOST_NAMES, _LONGEST_NAME = 128, 128
"""The most names that are compared, and the most characters of one: a comparison takes quadratic time."""

_MOST_LISTED = 16
"""The most known names that an error lists, if their class has a help page."""

_NOWHERE: Mapping[str, Collection[str]] = {}

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

_OTHER_NAMES = {name for names in _NAMES_ELSEWHERE.values() for name in names.split()}

_MISPLACED = {
    ("try_mmap", "temperature"): "it is a setting of a response, not of loading: pass it to each call",
    ("try_mmap", "max_tokens"): "it is a setting of a response, not of loading: pass it to each call",
    ("stop_strings", "context_length"): (
        "it takes effect while the model loads: pass it where the model is loaded, in client.llm.model"
    ),
    ("raw_tools", "tools"): "pass them to act(), which runs them",
    ("load_config", "reasoning_effort"): "chat models have it",
    ("host", "port"): "write it behind the host: host='HOST:PORT'",
    ("api_host", "port"): "write it behind the host: api_host='HOST:PORT'",
    ("query_prefix", "chunk_size"): "remove it: several texts are sent at a time",
}
"""What helps if a setting is given to the other config, or to another adapter; one setting that it has is named."""

_WITHOUT_COUNTERPART = """
    api_version async_client async_client_kwargs check_embedding_ctx_length client default_query disabled_params
    embedding_ctx_length encode_kwargs include is_chat_model mirostat mirostat_eta mirostat_tau modalities
    openai_organization organization prompt_cache_key prompt_key repeat_last_n reuse_client service_tier
    should_use_structured_outputs skip_empty store strict sync_client_kwargs tfs_z tiktoken_enabled
    tiktoken_model_name use_responses_api user verbosity
"""
"""Settings of the classes that the pages on migration are about, which mean nothing here."""

_DICTS = "additional_kwargs client_kwargs extra_body model_kwargs ollama_additional_kwargs options"
"""Names of dicts in other packages that hold what are settings here."""

_SCHEMA = (
    "use with_structured_output(schema), in LlamaIndex as_structured_llm; or, for any JSON object, pass "
    "response_format={'type': 'object'} to the call"
)

_OF_ADAPTERS = {
    **dict.fromkeys(_WITHOUT_COUNTERPART.split(), "remove it"),
    **dict.fromkeys(_DICTS.split(), "write its entries as settings"),
    **dict.fromkeys(("best_of", "n"), "remove it: a call has one response"),
    **dict.fromkeys(("format", "json_mode"), _SCHEMA),
    **dict.fromkeys(("http_client", "http_async_client"), "remove it; for certificates of your own, write ca_file=…"),
    **dict.fromkeys(("request_timeout", "timeout"), "for a whole call, write timeouts={'total_timeout': …}"),
    **dict.fromkeys(("gpu_layers", "n_gpu_layers", "num_gpu"), "write load_config={'gpu': {'ratio': …}}, from 0 to 1"),
    "allow_private_image_hosts": "write allow_image_download='private'",
    "evict": "write load_policy='fit_any'",
    "extra": "write prediction_config={'raw': …}",
    "stream_usage": "remove it; the last chunk of a stream always has the token counts",
    "tokenizer": "remove it; in LlamaIndex write Settings.tokenizer = LMStudioTokenizer(llm)",
    "validate_model_on_init": "remove it, and call load(), which fails if there is no such model",
}
"""What takes the place of settings that adapters do not have. They are mostly those of other packages."""


def closest_names(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Return the name most similar to an unknown one, if there is one, among the first 128 of up to 128 characters.

    If some begin with it, the others are no misspellings of it.

    Args:
        name: The unknown name.
        known: The known names.
        cutoff: How similar they must be, 0 to 1.
    """
    if len(name) > _LONGEST_NAME:
        return []
    names = [each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    similar = get_close_matches(name, names, n=max(len(names), 1), cutoff=cutoff)
    return ([each for each in similar if each.lower().startswith(name.lower())] or similar)[:1]


def counterpart(name: str, known: Collection[str]) -> str | None:
    """Return the known name for a setting, which may be one of another package; `None` if there is none."""
    if name in known:
        return name
    return next((own for own, names in _NAMES_ELSEWHERE.items() if own in known and name in names.split()), None)


def explain_unknown_settings(
    names: Sequence[str],
    known: Collection[str],
    owner: str,
    places: Mapping[str, Collection[str]],
    of_language_models: Collection[str],
) -> str:
    """Return the error about unknown settings of an adapter. It names all, because moved programs have several.

    Args:
        names: The unknown names.
        known: The known names.
        owner: The name of the adapter's class.
        places: The settings that hold others, with the names of those.
        of_language_models: The settings of language models, if this is an embedding model.
    """
    remedies: dict[str, list[str]] = {}
    for name in names:
        if counterpart(name, known) is None and counterpart(name, of_language_models) is not None:
            remedy = "remove it: it is a setting of language models, and this is an embedding model"
        else:
            remedy = _OF_ADAPTERS.get(name) or explain_unknown_setting(name, known, owner, places=places)
        remedies.setdefault(remedy, []).append(name)
    if len(names) == 1:
        return f"unknown setting {names[0]!r}; {next(iter(remedies))}"
    return "unknown settings" + "".join(f"\n  {', '.join(of)}: {remedy}" for remedy, of in remedies.items())


def explain_unknown_setting(
    name: str, known: Collection[str], owner: str = "", *, places: Mapping[str, Collection[str]] = _NOWHERE
) -> str:
    """Return the end of an error about an unknown setting, which may be one of another package.

    Args:
        name: The unknown name.
        known: The known names.
        owner: The class whose `help` lists the known names, if they are many.
        places: The settings that hold others, with the names of those.
    """
    if (setting := counterpart(name, known)) is not None:
        return f"did you mean {setting!r}?"
    for place, names in places.items():
        if (setting := counterpart(name, names)) is not None:
            return f"write {place}={{{setting!r}: …}}"
    for (other, misplaced), remedy in _MISPLACED.items():
        if misplaced == name and (other in known or any(other in names for names in places.values())):
            return remedy
    if name in _OTHER_NAMES:  # no misspelling, so the nearest name means something else
        return _known_names(known, owner)
    return explain_unknown_name(name, known, owner, places=places)


def explain_unknown_name(
    name: str, known: Collection[str], owner: str = "", *, places: Mapping[str, Collection[str]] = _NOWHERE
) -> str:
    """Return the end of an error about an unknown name: the nearest known one, or the known ones.

    Args:
        name: The unknown name.
        known: The known names.
        owner: The class whose `help` lists the known names, if they are many.
        places: The settings that hold others, with the names of those.
    """
    for nearest in closest_names(name, known, cutoff=NAME_CUTOFF):
        return f"did you mean {nearest!r}?"
    for place, names in places.items():
        for nearest in closest_names(name, names, cutoff=NAME_CUTOFF):
            return f"did you mean {place}={{{nearest!r}: …}}?"
    return _known_names(known, owner)


def _known_names(known: Collection[str], owner: str) -> str:
    if owner and len(known) > _MOST_LISTED:
        return f"help({owner}) lists the known ones"
    return f"known are {', '.join(sorted(known))}"


# Values that pydantic rejects -----------------------------------------------------------------------------------------

OR_FALSE = "value or False"
"""The part of a location that says that `False` would be valid as well."""

_MEMBERS_OF_UNIONS = {"bool", "int", "float", "str"}
"""Parts of a location that are no names of values."""


def explain(error: ValidationError) -> str:
    """Return pydantic's errors as one clause per value: its name, the value, the reasons; without types and URLs."""
    reasons: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        name = ".".join(
            str(part)
            for part in problem["loc"]
            if isinstance(part, int) or (part.isidentifier() and part not in _MEMBERS_OF_UNIONS)
        )
        value = f"{name}={shown(problem['input'])}" if name and problem["type"] != "missing" else name
        reasons.setdefault(value, []).append(_reason(problem))
    clauses = {value: ", or ".join(dict.fromkeys(texts)) for value, texts in reasons.items()}
    return "; ".join(f"{value}: {text}" if value else text for value, text in clauses.items())


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return "must be given"
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        return "unknown" if name.islower() and name.isalpha() else "given in both spellings, or unknown"
    switch = ", or False to switch it off" if OR_FALSE in problem["loc"] else ""
    return problem["msg"].removeprefix("Value error, ") + switch


def reason_of(error: BaseException) -> str:
    """Return what an exception says, which may be one of pydantic about a class or a value of the user."""
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False)
        return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}" for each in problems)
    return str(error.message) if isinstance(error, PydanticUserError) else str(error)


# Errors of the server -------------------------------------------------------------------------------------------------

SERVER_SETTINGS = "the server's settings (LM Studio: Developer > Server Settings; Bionic: Settings > Local Model API)"
"""Where the applications have them."""

NAME_A_MODEL = "name a model, which is then loaded on first use; `lmsi ls` lists those that are downloaded"
"""What helps if no model is loaded."""

_TWO_MODELS = 'see "Two chat models at once" in the guide to loading models'

KEEP_LOADED = (
    "load one of them with load_policy='explicit', which is never evicted (an instance that is loaded already stays as "
    f"it was), or switch Auto-Evict off in {SERVER_SETTINGS}; {_TWO_MODELS}"
)
"""What helps if the loads of two models evict each other."""

FIT_BOTH = f"`lmsi plan` shows which smaller context_length leaves room for both; {_TWO_MODELS}"
"""What helps if two models do not fit into the memory at once."""

MAKE_ROOM = "load_policy='fit' unloads what must go for it, as far as that is not in use"
"""What helps if there is too little memory for a load."""

SEE_LOG = "the server's log may say why: `lms log stream`"

UPDATE_FOR_DECISIONS = "update LM Studio to 0.4.26 or later (Bionic presumably to 1.1.7)"
"""What helps if a server does not know decision models."""

_SAMPLE, _LONGEST_KEY, _MOST_MEANT = 20, 256, 2
"""Names listed in a suggestion, characters kept of each, and models that may have been meant."""


_FORMAT = r"[.-](gguf|mlx|splash)$"
"""The end of a file's or a folder's name that is not part of the model's."""


def of_details(display: Mapping[str, Any] | None) -> str | None:
    """Return what helps, as the machine-readable part of an error says; `None` if it says nothing of use."""
    code = (display or {}).get("code")
    suggest = _BY_CODE.get(code) if isinstance(code, str) else None
    try:
        return suggest(display or {}) if suggest else None
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        return None  # it is malformed; the error itself must still be raised


def _sample(names: object) -> list[str]:
    if not is_list(names):
        raise TypeError("the sample is not a list")
    return [str(name)[:_LONGEST_KEY] for name in names[:_SAMPLE]]


def _not_loaded(display: Mapping[str, Any]) -> str | None:
    loaded, query = _sample(display["loadedModelsSample"]), display.get("query")
    name = (query.get("identifier") or query.get("path")) if is_object(query) else display.get("identifier")
    if not name:
        return None  # whoever looked for any model names one that the server has
    listing = f"loaded are {', '.join(loaded)}" if loaded else "no model of this kind is loaded"
    load = f"lms load {quote(str(name)[:_LONGEST_KEY])}"
    return f"{listing}; load it with `{load}`, or set load_policy='get_or_load', which loads it on first use"


def _not_downloaded(display: Mapping[str, Any]) -> str:
    name, paths = str(display["path"]), _sample(display["availablePathsSample"])
    get = f"download it with `lms get {quote(name[:_LONGEST_KEY])}`"
    models: dict[str, list[str]] = {}  # by each part of a path that people take for the name
    for path in paths:
        if path != name:
            for part in {path, *path.split("/")}:
                models.setdefault(re.sub(_FORMAT, "", part.lower()), []).append(path)
    stem = re.sub(_FORMAT, "", name.lower().removeprefix("lmstudio:").partition("@")[0])
    begun = [part for part in models if part.startswith(stem)]
    similar = [stem] if stem in models else begun or closest_names(stem, models, cutoff=0.85)
    meant = list(dict.fromkeys(repr(path) for part in similar for path in models[part]))[:_MOST_MEANT]
    if meant:
        return f"Did you mean {' or '.join(meant)}? If not, {get}"
    listing = f"downloaded are {', '.join(paths)}" if paths else "no model of this kind is downloaded"
    return f"{listing}; {get}"


def _preset(display: Mapping[str, Any]) -> str:
    presets = [each for each in display["availablePresetsSample"] if is_object(each) and "identifier" in each]
    if not presets:
        return "the server has no presets: save one in LM Studio, or pass the settings themselves"
    return f"available are {', '.join(_sample([each['identifier'] for each in presets]))}"


_BY_CODE: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "generic.noModelMatchingQuery": _not_loaded,
    "generic.identifierNotFound": _not_loaded,
    "generic.pathNotFound": _not_downloaded,
    "generic.presetNotFound": _preset,
}


def shorten_prompt(used: int | None, limit: int | None, maximum: int | None) -> str:
    """Return what helps if a prompt is too long, with the power of two that leaves room for a response.

    Args:
        used: Tokens of the prompt, if known.
        limit: Context length of the loaded model, if known.
        maximum: The longest context length of the model, if known.
    """
    if maximum is not None and max(used or 0, limit or 0) >= maximum:
        return f"shorten the prompt: this model takes at most {maximum} tokens"
    enough = 1 << (used + used // 4).bit_length() if used else maximum
    length = "" if enough is None else f"={enough if maximum is None else min(enough, maximum)}"
    return (
        f"shorten the prompt, or load the model with context_length{length}; a loaded model keeps its context length, "
        "so unload it first, with client.llm.unload(KEY) or an adapter's unload()"
    )


# The way to the server ------------------------------------------------------------------------------------------------

IN_CONTAINER = any(Path(file).exists() for file in ("/.dockerenv", "/run/.containerenv"))
"""Whether there is a file that Docker and Podman put into each container. Event loops must not look for it."""

_DOCKER_HOST = "host.docker.internal"

_TOKEN_LIKE = r"LM_?(STUDIO_?)?(API_?)?(KEY|TOKEN)"  # noqa: S105 - a pattern
"""Names under which people look for the API token."""


def no_listener(port: int, *, is_local: bool) -> str:
    """Return what helps if nothing listens on a port of this machine, or of another one."""
    switch_on = (
        "switch its server on (LM Studio: Developer > Status; Bionic: Settings > Local Model API; llmster: `lms server "
        "start`)"
    )
    if not is_local:
        return f"{switch_on} there, with 'Serve on Local Network'"
    note = f"; {_on_host(port)}" if IN_CONTAINER else ""
    return f"{switch_on}, or run `lmsi serve`, which is an emulator, or set host to the right port{note}"


def no_name(host: str) -> str:
    """Return what helps if a name cannot be resolved."""
    if host == _DOCKER_HOST:
        return f"start the container with --add-host={_DOCKER_HOST}:host-gateway"
    return "check its spelling, or use the IP address"


def no_server(port: int) -> str:
    """Return what helps on a machine without LM Studio, given its usual port.

    What concerns containers is on a line of its own.
    """
    named = os.environ.get(SERVER_FILE_VARIABLE)
    unset = f"unset {SERVER_FILE_VARIABLE}, with which nothing else is tried; or " if named else ""
    note = f"\n  {_on_host(port)}" if IN_CONTAINER else ""
    return (
        f"{unset}open LM Studio or Bionic, start llmster, or run `lmsi serve`, which is an emulator; if it runs on "
        f"another machine or port, set {HOST_VARIABLE} or pass its address{note}"
    )


def _on_host(port: int) -> str:
    return (
        f"this is a container: if LM Studio or Bionic runs on its host, set host to {_DOCKER_HOST}:{port}, and switch "
        f"on 'Serve on Local Network' in {SERVER_SETTINGS}"
    )


def token_source(token: str) -> str:
    """Return where a token comes from, for an error message: from the environment, or from an argument."""
    variable = next((name for name in TOKEN_VARIABLES if os.environ.get(name) == token), None)
    return f"in {variable}" if variable else "given as api_token"


def token_suggestion(token: str | None, placeholder: str | None = None, withheld_from: str | None = None) -> str:
    """Return what helps if a server rejects the credentials of a client. Shows no token.

    Args:
        token: The token of the client.
        placeholder: What was given in its place and is no token.
        withheld_from: The server that did not get the token, because nobody named that server.
    """
    if placeholder is not None:
        return (
            f"the API token {token_source(placeholder)} is none of LM Studio's (sk-lm-…), so it was not sent: "
            f"create one in {SERVER_SETTINGS}, or switch off 'Require Authentication' there and leave it out"
        )
    if withheld_from is not None:
        return (
            f"the API token was not sent, because {withheld_from} was only found, and another user may have started "
            f"that server; if you trust it, name it: set {HOST_VARIABLE}={withheld_from} or pass its address"
        )
    if token is not None:
        return (
            f"the server does not accept the API token {token_source(token)}: copy it again from {SERVER_SETTINGS}, or "
            "create another one"
        )
    unsent = next(filter(os.environ.get, TOKEN_VARIABLES), None)
    if unsent and os.environ.get(HOST_VARIABLE):
        return (
            f"no API token was sent: that in {unsent} is for the host in {HOST_VARIABLE}; pass api_token together with "
            f"this host, or name this host in {HOST_VARIABLE}"
        )
    unread = sorted(name for name in os.environ if re.fullmatch(_TOKEN_LIKE, name) and name not in TOKEN_VARIABLES)
    note = f" (not read: {', '.join(unread)})" if unread else ""
    return (
        f"no API token was sent: create one in {SERVER_SETTINGS}, and set {TOKEN_VARIABLES[0]} or pass api_token={note}"
    )
