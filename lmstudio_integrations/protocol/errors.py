"""Errors on the wire to exceptions: by code first, then by known texts of the server (docs/protocol.md#errors).

They say what helps: what the server suggests, the remedy of a cause, or what `_support/suggestions.py` makes of a code.
All of it runs on the thread that serves every call, so its work is bounded: long texts are cut first, and each pattern
needs time linear in the text.
"""

import re
from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple, TypeVar

from lmstudio_integrations._support.secrets import redact, redact_received
from lmstudio_integrations._support.suggestions import SEE_LOG, of_details, shorten_prompt
from lmstudio_integrations._support.text import dumps, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioContextOverflowError,
    LMStudioEngineLostError,
    LMStudioInsufficientResourcesError,
    LMStudioModelCrashedError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioPresetNotFoundError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioStructuredOutputError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
    LMStudioWrongModelKindError,
)

ErrorT = TypeVar("ErrorT", bound=BaseException)
ServerErrorT = TypeVar("ServerErrorT", bound=LMStudioServerError)

# Codes are in displayData, never in errorData (docs/protocol.md#error-codes). For some of them, the official SDK raises
# its base class (docs/protocol.md#errors-to-exceptions).
_BY_CODE: dict[str, type[LMStudioServerError]] = {
    "generic.noModelMatchingQuery": LMStudioModelNotFoundError,
    "generic.pathNotFound": LMStudioModelNotFoundError,
    "generic.identifierNotFound": LMStudioModelNotFoundError,
    "generic.specificModelUnloaded": LMStudioModelUnloadedError,
    "generic.domainMismatch": LMStudioWrongModelKindError,
    "generic.engineDoesNotSupportFeature": LMStudioUnsupportedError,
    "generic.missingRuntimeExtension": LMStudioModelLoadError,
    "generic.presetNotFound": LMStudioPresetNotFoundError,
}


class Cause(NamedTuple):
    """Why a server fails, by its words.

    Attributes:
        kind: The class of the exception.
        pattern: What the server says, in its title, its root title, its cause or its data, behind any wrapper.
        seen: Where it was seen: application, version and source, or whose source code has it.
        remedy: What helps, if the server gives no advice, and the class alone does not tell. `{key}` in it is the
            setting that the server names.
        of: What must have failed: the class that the endpoint alone would give.
    """

    kind: type[LMStudioServerError]
    pattern: str
    seen: str
    remedy: str | None = None
    of: type[LMStudioServerError] = LMStudioServerError


_TRY_ANOTHER_SCHEMA = (
    "the server cannot make a grammar of a schema: simplify the one of the response format, or that of each tool, "
    "by turns"
)
_KEY = r"\b(?>(?:llm|embedding|decision)\.(?:load|prediction)\.[\w.]{1,128}|load\.\w{1,128}|envVars\b)"
"""The key of a setting, perhaps with the full stop of a sentence."""
_PRIVILEGE = r"privilege|permission|not permitted"
_OTHER_RUNTIME = (
    "the engine does not know this model: update its runtime in LM Studio's settings (Runtime), or LM Studio itself, "
    "or use another model"
)
_WITHOUT_DRAFT = "leave out the draft model, or use a model and a draft model in GGUF"

# The first match counts, so narrow texts stand before wide ones: a context overflow before "failed to load".
# A search tries each position where a pattern may begin. Two texts with anything between them (`n_keep` … `n_ctx`)
# would take the square of the length, so the first is searched once in a line: `(?>…)` never backtracks.
CAUSES: tuple[Cause, ...] = (
    Cause(
        LMStudioContextOverflowError,
        r"keep the first \d+ tokens when context the overflows",
        "LM Studio 0.3.13 to 0.3.15 (bug-tracker#546, cline#3664)",
    ),
    Cause(
        LMStudioContextOverflowError,
        r"tokens to keep from the initial prompt is greater than the context length",
        "LM Studio 0.4.x (openclaude#353)",
    ),
    Cause(LMStudioContextOverflowError, r"^(?>.*?n_keep).*n_ctx", "LM Studio 0.4.x (opencode#11141, continue#11279)"),
    Cause(
        LMStudioContextOverflowError,
        r"(exceed(s|ed|ing)?|larger than|overflow(s|ed)?) (the )?(available |maximum )?context",
        "llama.cpp, also in Bionic, September",
    ),
    Cause(
        LMStudioContextOverflowError,
        r"context (size|length|window) (has been |was )?exceeded",
        "LM Studio 0.4.x, MLX and llama.cpp (bug-tracker#2339)",
    ),
    Cause(LMStudioContextOverflowError, r"reached context length of \d+ tokens", "LM Studio 0.4.x"),
    Cause(
        LMStudioContextOverflowError,
        r"does not fit in (the )?context (length|window)",
        "LM Studio 0.4.2x, MLX, October (public file 70383850133)",
    ),
    Cause(
        LMStudioModelNotFoundError, r"no models? (is |are )?(currently )?loaded", "LM Studio 0.4.8 (bug-tracker#1730)"
    ),
    Cause(
        LMStudioModelNotFoundError,
        r'^(?>.*?model ").*" not found|cannot find (a )?model|model not found: |model does not exist'
        r"|the artifact does not exist|model \S{1,512} not found|invalid model identifier|model_not_found",
        "LM Studio 0.3.x and 0.4.x",
    ),
    Cause(
        LMStudioWrongModelKindError,
        r"model is not (embedding|llm|decision)|not an? (embedding|llm|decision)",
        "LM Studio 0.3.x",
    ),
    Cause(
        LMStudioModelUnloadedError,
        r"model (is|was|has been) unloaded|model unloaded",
        "LM Studio 0.3.36 to 0.4.2x (bug-tracker#1347, #1492)",
    ),
    Cause(
        LMStudioEngineLostError,
        r"no engine protocol runtime is registered|engine protocol runtime exited"
        r"|^(?>.*?engine protocol).*fetch failed",
        "LM Studio 0.4.20 and later (bug-tracker#2257)",
    ),
    Cause(
        LMStudioEngineLostError,
        r"^(fetch failed|terminated)$",  # a search for models says so as well, if there is no internet
        "LM Studio 0.4.2x, llama.cpp, September: the engine died in the middle of a response",
        of=LMStudioPredictionError,
    ),
    Cause(LMStudioInsufficientResourcesError, r"insufficient system resources", "LM Studio 0.3.x and 0.4.x"),
    Cause(
        LMStudioModelCrashedError,
        r"model (has )?crashed",
        "LM Studio 0.3.28 and 0.4.6 (bug-tracker#1057, #1620)",
    ),
    Cause(
        LMStudioInsufficientResourcesError,
        r"out[ _]?of[ _]?((device|host|video)[ _]?)?memory|(unable|failed) to allocate ([\w ]{1,40} )?buffers?\b"
        r"|device memory allocation of size \d{1,20} failed|\[metal::malloc\](?! resource limit)"
        r"|insufficient memory|not enough memory|cannot allocate memory|bad_alloc",
        "LM Studio 0.3.1x to 0.4.2x: CUDA, Vulkan and MLX (bug-tracker#698, #790, #943, #2133, #2240); words of HIP, "
        "Metal and the system",
    ),
    Cause(
        LMStudioUnsupportedError,
        r"speculative ?decoding is not supported|SpeculativeDecodingNotSupported"
        r"|speculative decoding is only supported",
        "LM Studio 0.4.1x and 0.4.2x, mlx-llm 1.11.0",
        _WITHOUT_DRAFT,
    ),
    Cause(
        LMStudioUnsupportedError,
        r"MTP speculative decoding requires",
        "LM Studio 0.4.1x (public file 54609250632)",
        "leave out speculative_draft_mtp, or use a model in GGUF that was trained for it",
    ),
    Cause(
        LMStudioPromptTemplateError,
        r"(?<![\w/.-])jinja(?![\w/-])|prompt template|applyPromptTemplate|while executing \w+ at line",
        "LM Studio 0.3.9 to 0.4.2x (bug-tracker#404, #842, #2218)",
    ),
    Cause(
        LMStudioPromptTemplateError,
        r"roles are supported|system role not supported|conversation roles must alternate|no user query found",
        "LM Studio 0.3.x and 0.4.20 (anything-llm#2914, bug-tracker#2219): what templates themselves say",
    ),
    Cause(
        LMStudioUnsupportedError,
        r"does not support (images?|vision)|image input is not supported|vision (add-?on|model is not loaded)",
        "LM Studio 0.3.2 and 0.3.15 (bug-tracker#655), 0.4.x",
        "use a model with vision (`lmsi ls`); if this one has it, download it again with its vision part (mmproj)",
    ),
    Cause(
        LMStudioUnsupportedError,
        r"logprobs is not supported with tools",
        "llama.cpp's server",
        "leave out log_probs, or the tools",
    ),
    Cause(
        LMStudioUnsupportedError,
        rf"{_KEY}.{{0,200}}?(?:{_PRIVILEGE})|(?:{_PRIVILEGE}).{{0,200}}?{_KEY}",
        "presumed, after a flag of keys in the SDK's source of September",
        "LM Studio lets only its own applications set {key}: leave it out, or set it there for the model",
    ),
    Cause(
        LMStudioToolCallError,
        # Arguments that are no JSON are those of a call in the conversation: asking again does not help.
        r"failed to (parse|generate a) tool call(?! arguments)|does not match the expected [\w-]{1,40} format"
        r"|invalid diff: (now finding|')|failed to parse input at pos \d|unexpected end of input in tool call"
        r"|no function provided",
        "LM Studio 0.3.23 to 0.4.2x, llama.cpp and MLX (bug-tracker#942, #1528, #2182, public file 62484611308)",
        "the engine cannot read what the model wrote: update its runtime in LM Studio's settings, or use another model",
    ),
    Cause(
        LMStudioStructuredOutputError,
        r"failed to parse grammar|unexpected empty grammar stack|'type' must be a string",
        "LM Studio 0.4.20 (bug-tracker#2230, hermes-agent#71279), llama.cpp, June (#23990)",
        _TRY_ANOTHER_SCHEMA,
    ),
    Cause(
        LMStudioModelLoadError,
        r"requires flash attention",
        "llama.cpp in LM Studio",
        "set flash_attention=True, or leave out v_cache_quantization",
    ),
    Cause(
        LMStudioModelLoadError,
        r"no lm runtime found|failed to load llm engine",
        "LM Studio 0.3.x",
        "install or update the runtime for this format in LM Studio's settings (Runtime)",
    ),
    Cause(
        LMStudioModelLoadError,
        r"unknown (model )?architecture|model type \S{1,128} (is )?not supported"
        r"|no module named '\S{0,100}\.models\.|support is not ready yet|unknown (pre-tokenizer|projector) type",
        "LM Studio 0.3.9 to 0.4.21, llama.cpp and MLX (bug-tracker#359, #1268, #1739, #2021, mlx-engine#301)",
        _OTHER_RUNTIME,
    ),
    Cause(
        LMStudioModelLoadError,
        r"identifier \S{1,512} already exists",
        "LM Studio 0.3.2x (lmstudio-python's tests)",
        "pass another identifier, or unload the model that has this one",
    ),
    Cause(
        LMStudioModelLoadError,
        r"failed to load draft model",
        "LM Studio 0.4.18 (bug-tracker#2036)",
        "leave out the draft model, or use another one",
    ),
    Cause(
        LMStudioModelLoadError,
        r"wrong number of tensors|missing tensor|corrupted or incomplete|invalid magic|unexpectedly reached end of file"
        r"|error loading model: read error|SafetensorError|KeyError: 'model_type'",
        "LM Studio 0.2.28 to 0.4.12 (bug-tracker#95, #1343, #1824, lms#552); words of llama.cpp and safetensors",
        "a file is damaged or incomplete, or newer than the engine: download the model again, or update the runtime",
    ),
    Cause(
        LMStudioModelLoadError,
        r"pull a snapshot of system resources",
        "LM Studio 0.3.30 and 0.4.5 (bug-tracker#1095, #1584)",
        f"restart LM Studio; {SEE_LOG}",
    ),
    Cause(
        LMStudioModelLoadError,
        r"fork path .{0,400}? does not exist",
        "Bionic 1.0.1 and 1.0.3 (bug-tracker#2171)",
        "a part of the application is missing: update the application",
    ),
    Cause(
        LMStudioModelLoadError,
        r"LM Link connection entered error state",
        "LM Studio 0.4.19 (bug-tracker#2184)",
        "switch the linked device on, and check its connection",
    ),
    Cause(
        LMStudioModelLoadError,
        r"failed to load|load-error|error loading model|exited before becoming healthy",
        "LM Studio 0.3.x, 0.4.2x, Bionic",
    ),
    Cause(LMStudioAuthenticationError, r"api token|api key", "LM Studio 0.4.x"),
)
"""What servers say, the narrow before the wide."""

_OF_PREDICTIONS = r"(?i)prediction-error|iterating prediction stream|generation failed|channel error"
"""What wraps the failure of a prediction where nothing else tells that it was one."""

_NAMED = r"""(?i)(model|identifier|path) (["'])[^"'\n]{0,512}\2"""
"""A name in a text, which may contain any words."""

_NUMBERS = (
    r"(?si)first (\d{1,12}) tokens.{0,200}?length of only (\d{1,12})"
    r"|n_keep:? ?\(?(\d{1,12})\)? ?>= ?n_ctx:? ?\(?(\d{1,12})|reached context length of (\d{1,12}) tokens"
    r"|request \((\d{1,12}) tokens\) exceeds the available context size \((\d{1,12}) tokens\)"
    r"|request exceeds the available context size \((\d{1,12}) tokens\)"
    r"|input has (\d{1,12}) tokens, .{0,50}?supports (\d{1,12}) tokens"
    r"|input length (\d{1,12}) exceeds context length (\d{1,12})"
)

OVERFLOW = "the prompt has {used} tokens, and the model is loaded with a context length of {limit}"
"""What the error says if a prompt does not fit into the context window."""


def error_object(value: object) -> Mapping[str, Any]:
    """Return an error on the wire as the object that it should be; a mere string is taken as the title."""
    if is_object(value):
        return value
    return {"title": value} if isinstance(value, str) else {}


def to_exception(
    error: Mapping[str, Any],
    label: str,
    default: type[LMStudioServerError] = LMStudioServerError,
    *,
    kind: type[LMStudioServerError] | None = None,
) -> LMStudioServerError:
    """Return the exception of an error on the wire.

    Args:
        error: The error object; every field of it is optional and may have any type.
        label: What failed, for the message: `RPC`, `Model load`, `Chat response`, …
        default: The class if neither the code nor the text is known.
        kind: The class, whatever code and text are: those of plugins may say anything.
    """
    root_title, cause, suggestion = (_text(error, name) for name in ("rootTitle", "cause", "suggestion"))
    # Every field is optional, and the title has this default (docs/protocol.md#errors).
    title = _text(error, "title") or root_title or "Unknown error"
    display, data = _object(error, "displayData"), _object(error, "errorData")
    texts, further = f"{title}\n{root_title}\n{cause}", shortened(dumps(data)) if data else ""
    kind = kind or _BY_CODE.get(_text(display or {}, "code") or "")
    if kind is None:
        found = _cause_in(texts, default) or _cause_in(further, default)
        if found is not None:
            named = re.search(_KEY, f"{texts}\n{further}")
            remedy = found.remedy and found.remedy.replace("{key}", named[0].rstrip(".") if named else "")
            kind, suggestion = found.kind, suggestion or remedy
        else:
            is_prediction = default is LMStudioServerError and re.search(_OF_PREDICTIONS, texts)
            kind = LMStudioPredictionError if is_prediction else default
    # Written as by the official Python SDK, so that programs that match its texts keep working.
    header = title if root_title in {None, title} else f"{root_title}: {title}"
    details: dict[str, Any] = {
        "title": title,
        "root_title": root_title,
        "cause": cause,
        "display_data": display,
        "error_data": data,
    }
    if kind is LMStudioContextOverflowError:
        details |= _context_tokens(f"{texts}\n{further}")
        if "used" in details:  # the server's own sentence is harder to read, and has no other information
            header, cause, suggestion = OVERFLOW.format(**details), None, None
    remedy = of_details(display) or (None if suggestion else _REMEDIES.get(kind))
    details["suggestion"] = suggestion = _joined(suggestion, redact(remedy)) if remedy else suggestion
    tail = "".join(f"\n  {label}: {text}" for label, text in (("cause", cause), ("suggestion", suggestion)) if text)
    return kind(f"{label} error: {header}{tail}", **details)


_REMEDIES: dict[type[LMStudioServerError], str] = {
    LMStudioInsufficientResourcesError: "set a smaller context_length, use a smaller model, or unload others",
    LMStudioModelCrashedError: (
        f"the next call loads it again; set a smaller context_length if memory is short; {SEE_LOG}"
    ),
    LMStudioEngineLostError: (
        f"the next call loads it again; if that fails as well, restart LM Studio or update its runtimes; {SEE_LOG}"
    ),
    LMStudioModelLoadError: f"try a smaller context_length or another model; {SEE_LOG}",
    LMStudioPromptTemplateError: "update the model, or change its prompt template in LM Studio's model settings",
}
"""What helps with errors about which nothing else does."""


def add_suggestion(error: ServerErrorT, suggestion: str) -> ServerErrorT:
    """Return an error with one more suggestion, in its message and in its attribute, unless it has that already."""
    before = error.suggestion or ""
    if suggestion in before:
        return error
    result = copy(error)
    result.suggestion = _joined(before, suggestion)
    added = result.suggestion.removeprefix(before)
    result.args = (redact(f"{error}{added}" if before else f"{error}\n  suggestion: {added}"),)
    return result


def _joined(before: str | None, suggestion: str) -> str:
    """Return two suggestions as one; a server's own is a sentence, and ours are clauses."""
    return f"{before}{'' if before.endswith('.') else ';'} {suggestion}" if before else suggestion


def with_window(
    error: LMStudioContextOverflowError, length: int | None, maximum: int | None
) -> LMStudioContextOverflowError:
    """Return a context overflow that knows the context window, and suggests nothing beyond it.

    Args:
        error: The error of the server.
        length: The context length of the instance, if it is known; the server's own number counts.
        maximum: The longest context length of the model, if it is known.
    """
    limit = error.limit or length
    result = add_suggestion(error, shorten_prompt(error.used, limit, maximum))
    result.limit = limit
    return result


def context_overflow(label: str, used: int, limit: int, maximum: int | None) -> LMStudioContextOverflowError:
    """Return the error of a prompt that this process has found not to fit into the context window.

    Args:
        label: What errors call the operation.
        used: Tokens of the prompt.
        limit: Context length of the loaded model.
        maximum: The longest context length of the model, if it is known.
    """
    title = OVERFLOW.format(used=used, limit=limit)
    error = LMStudioContextOverflowError(f"{label} error: {title}", used=used, limit=limit, title=title)
    return with_window(error, limit, maximum)


_UNLOADED = {"generic.noModelMatchingQuery", "generic.identifierNotFound", "generic.specificModelUnloaded"}
"""Codes that mean: the requested instance is not loaded."""


def means_unloaded(error: LMStudioModelNotFoundError) -> bool:
    """Whether a not-found error is about the requested instance, and not about another model on the disk.

    A request may name a second model, such as the draft model.
    """
    code = (error.display_data or {}).get("code")
    # Without a code, the text decides: `Model "x" not found` means the requested instance, `Cannot find model "x"` a
    # model on the disk.
    return code in _UNLOADED if code else "cannot find" not in str(error).lower()


def means_no_explicit_load(error: LMStudioServerError) -> bool:
    """Whether an explicit load was rejected, and a just-in-time load of the same model may succeed."""
    # Too little memory counts as well: unlike an explicit load, a just-in-time load evicts other models.
    denied = isinstance(error, LMStudioInsufficientResourcesError | LMStudioAuthenticationError)
    return denied or "permission" in str(error).lower()


def details_of(error: LMStudioServerError) -> dict[str, Any]:
    """Return the server's part of an error, as arguments of another error about the same failure."""
    names = ("title", "root_title", "cause", "suggestion", "display_data", "error_data")
    return {name: getattr(error, name) for name in names}


def _context_tokens(text: str) -> dict[str, int]:
    match = re.search(_NUMBERS, text)
    if not match:
        return {}
    *used, limit = (int(number) for number in match.groups() if number is not None)
    return {"used": used[0], "limit": limit} if used else {"limit": limit}


def _cause_in(texts: str, default: type[LMStudioServerError]) -> Cause | None:
    texts = re.sub(_NAMED, r"\1 \2\2", texts)
    flags = re.IGNORECASE | re.MULTILINE
    return next(
        (cause for cause in CAUSES if issubclass(default, cause.of) and re.search(cause.pattern, texts, flags)), None
    )


def _text(error: Mapping[str, Any], name: str) -> str | None:
    value = error.get(name)
    return redact_received(shortened(value)) if isinstance(value, str) and value else None


def _object(error: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = error.get(name)
    return value if is_object(value) else None


def copy_of(error: ErrorT) -> ErrorT:
    """Return a copy of an error, because each caller needs a traceback of its own; itself if it cannot be copied."""
    try:
        like = copy(error)
    except TypeError:  # its constructor needs other arguments than `args`
        return error
    like.__cause__ = error.__cause__
    return like
