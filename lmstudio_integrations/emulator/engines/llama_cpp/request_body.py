"""Requests in llama.cpp's form: sampling, stop strings, templates, log-probabilities; a text that is embedded.

Settings arrive complete, with LM Studio's defaults; llama.cpp's own defaults differ and make small models ramble.

The engine tokenizes the text of an embedding request itself, but it parses special tokens in it, and rejects a text
that is too long. So only texts where neither can happen are sent as they are; the tokens of others are counted first.
"""

import base64
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp.error_responses import unsupported
from lmstudio_integrations.types.config import LlmPredictionConfig

Json = dict[str, Any]

_SAMPLING: tuple[tuple[str, str, Any], ...] = (
    ("temperature", "temperature", None),
    ("top_k_sampling", "top_k", None),
    ("top_p_sampling", "top_p", 1.0),
    ("min_p_sampling", "min_p", 0.0),
    ("repeat_penalty", "repeat_penalty", 1.0),
    ("presence_penalty", "presence_penalty", 0.0),
    ("frequency_penalty", "frequency_penalty", 0.0),
    ("xtc_probability", "xtc_probability", 0.0),
    ("xtc_threshold", "xtc_threshold", 0.1),
    ("seed", "seed", None),
    ("reasoning_budget", "thinking_budget_tokens", None),
)
"""Our name, llama.cpp's name, and its value for "off" and for settings that are not set; `None` omits the setting."""


def sampling(config: LlmPredictionConfig) -> Json:
    """Return the sampling settings.

    Raises:
        EngineError: If a draft model is requested, or a logit bias names a token by its text.
    """
    if config.draft_model:
        raise unsupported("speculativeDecoding", "speculative decoding with a draft model", "Leave draftModel out.")
    body: Json = {}
    for ours, theirs, off in _SAMPLING:
        value = getattr(config, ours)
        if value is None or value is False:  # not 0, which equals False
            value = off
        if value is not None:
            body[theirs] = value
    if config.logit_bias:
        body |= _logit_bias(config.logit_bias)
    for key, value in (config.raw or {}).items():
        translate = _RAW.get(key)
        if translate is not None:
            body |= translate(value)
    return body


def log_probs(candidates: int | None, *, chat: bool) -> Json:
    """Return the settings for log-probabilities with so many alternatives per token; `None` for none at all."""
    if candidates is None:
        return {}
    number = max(1, candidates)
    return {"logprobs": True, "top_logprobs": number} if chat else {"n_probs": number}


def template_arguments(config: LlmPredictionConfig, loaded: str) -> Json:
    """Return the arguments of the chat template.

    Args:
        config: The settings. A Jinja template among them is the loaded one, perhaps behind lines that set a switch.
        loaded: The chat template that was loaded.

    Raises:
        EngineError: If another Jinja template is set: llama.cpp accepts one only when it loads a model.
    """
    arguments = {} if config.enable_thinking is None else {"enable_thinking": config.enable_thinking}
    template = config.prompt_template or {}
    if template.get("type") == "jinja":
        jinja = template.get("jinjaPromptTemplate")
        arguments |= _switches(str(jinja.get("template", "")) if is_object(jinja) else "", loaded)
    return {"chat_template_kwargs": arguments} if arguments else {}


_SWITCHES = re.compile(r"(?:\{%-? set \w+ = (?:true|false) -?%\}\n?)*")
_SWITCH = re.compile(r"set (\w+) = (true|false)")


def _switches(template: str, loaded: str) -> dict[str, bool]:
    """Return the switches that a template sets before it goes on like the one that was loaded."""
    before = template.removesuffix(loaded)
    if not loaded or not template.endswith(loaded) or not _SWITCHES.fullmatch(before):
        raise unsupported(
            "promptTemplate",
            "a Jinja template for a single prediction, unless it is the loaded one behind lines that set a switch",
            "Set promptTemplate in the load config instead.",
        )
    return {name: value == "true" for name, value in _SWITCH.findall(before)}


def manual_template(config: LlmPredictionConfig) -> Mapping[str, str] | None:
    """Return the template of prefixes and suffixes, if one is set."""
    template = config.prompt_template or {}
    manual = template.get("manualPromptTemplate")
    return manual if is_object(manual) and template.get("type") != "jinja" else None


def _mirostat(value: Any) -> Json:
    if not is_object(value) or not value.get("version"):
        return {}
    return {
        "mirostat": value["version"],
        "mirostat_eta": value.get("learningRate", 0.1),
        "mirostat_tau": value.get("targetEntropy", 5),
    }


def _logit_bias(biases: Mapping[int | str, float]) -> Json:
    for token in biases:
        if isinstance(token, str):
            raise EngineError(f"Invalid logit bias: a token must be an id, got {token!r}")
    return {"logit_bias": [[token, False if bias == -math.inf else bias] for token, bias in biases.items()]}


def _typical(value: Any) -> Json:
    is_on = is_object(value) and value.get("checked") and value.get("value") not in (None, False)
    return {"typical_p": value["value"]} if is_on else {}


_RAW: dict[str, Callable[[Any], Json]] = {
    "llm.prediction.llama.mirostatSampling": _mirostat,
    "llm.prediction.llama.locallyTypicalSampling": _typical,
}
"""Settings that have no field of their own."""


ADDED_TOKENS = 8
"""The most tokens that a tokenizer adds to a text: a start, an end, a leading space."""

_PLAIN = re.compile(r"[A-Za-z0-9\s.,;:!?'\"()/%&+*=-]+", re.ASCII)
"""Text that contains no special token, such as `[SEP]` or `</s>`, and of which each character is at most one token."""


def fits(text: str, context_length: int) -> bool:
    """Return whether a text surely fits into the context, and reads the same with special tokens."""
    return len(text) + ADDED_TOKENS <= context_length and not text.isspace() and _PLAIN.fullmatch(text) is not None


def embedding(text_or_tokens: str | Sequence[int]) -> dict[str, Any]:
    """Return the body for `/v1/embeddings`."""
    # Base64, because a list of numbers takes eight times as long to read.
    return {"input": text_or_tokens, "encoding_format": "base64"}


def vector_of(response: Mapping[str, Any]) -> list[float]:
    data = base64.b64decode(response["data"][0]["embedding"])
    return list(struct.unpack(f"<{len(data) // 4}f", data))
