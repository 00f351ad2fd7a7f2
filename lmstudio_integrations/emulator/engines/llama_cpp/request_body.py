"""Requests in llama.cpp's form: sampling, stop strings, templates, log-probabilities; a text that is embedded.

Settings arrive complete, with LM Studio's defaults; llama.cpp's own defaults differ and make small models ramble.

The engine tokenizes the text of an embedding request itself, but it parses special tokens in it, and rejects a text
that is too long. So only texts where neither can happen are sent as they are; the tokens of others are counted first.
"""

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineError, Image
from lmstudio_integrations.emulator.engines.llama_cpp.responses import unsupported
from lmstudio_integrations.types.chat import (
    AssistantMessage,
    ChatHistory,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.files import FileHandle, image_format
from lmstudio_integrations.types.functions import Tool, ToolCallRequest, ToolCallRequestPart
from lmstudio_integrations.types.reasoning import Tags

Json = dict[str, Any]


def to_messages(
    history: ChatHistory,
    *,
    native_tools: bool,
    native_calls: bool = True,
    images: Mapping[str, Image] | None = None,
    system_prompt: str = "",
    instructions: str = "",
) -> list[Json]:
    """Return the messages of a conversation.

    Adjacent messages of one role become one, because many templates require alternating roles.

    Args:
        history: The conversation.
        native_tools: Whether the template supports tools and their results; else they are written as text.
        native_calls: Whether such a template also shows calls; else they are written as text.
        images: Uploaded images by identifier; `None` omits images.
        system_prompt: Used if the conversation has no system message.
        instructions: Added to the system message.

    Raises:
        EngineError: If a message contains a file that is not an image.
    """
    translated = chain.from_iterable(
        _translate(message, native_tools=native_tools, native_calls=native_calls, images=images)
        for message in history.messages
    )
    return _with_system(_merge(translated), system_prompt, instructions)


def tool_instructions(tools: Sequence[Tool]) -> str:
    """Return the part of a system prompt that describes tools to a model whose template does not support them."""
    lines = "\n".join(json.dumps(tool.function.to_dict(), ensure_ascii=False) for tool in tools)
    form = '{"name": <tool>, "arguments": {…}}'
    return (
        f"You can call these tools:\n{lines}\nCall a tool with JSON: {form}. "
        "After [TOOL_RESULT], answer the question in words with the result."
    )


def _translate(
    message: Message, *, native_tools: bool, native_calls: bool, images: Mapping[str, Image] | None
) -> list[Json]:
    match message:
        case ToolMessage() if native_tools:
            return [
                {"role": "tool", "content": part.content, "tool_call_id": part.tool_call_id or ""}
                | ({"name": part.name} if part.name else {})
                for part in message.content
            ]
        case ToolMessage():
            results = [f"[TOOL_RESULT]{part.content}[END_TOOL_RESULT]" for part in message.content]
            return [{"role": "user", "content": "\n".join(results)}]
        case AssistantMessage():
            return [_assistant(message, native=native_tools and native_calls)]
        case _:
            return [_user_or_system(message, images)]


def _user_or_system(message: SystemMessage | UserMessage, images: Mapping[str, Image] | None) -> Json:
    text = _text(message)
    files = [part for part in message.content if isinstance(part, FileHandle)]
    if not files or images is None or isinstance(message, SystemMessage):
        return {"role": message.role, "content": text}
    before = _as_parts(text) if text else []
    return {"role": message.role, "content": [*before, *(_image_part(file, images) for file in files)]}


def _image_part(file: FileHandle, images: Mapping[str, Image]) -> Json:
    image = images.get(file.identifier)
    if image is None:
        raise unsupported(file.file_type, f"{file.name!r} is not an uploaded image")
    image_type = image_format(image.data)
    media = image_type.media_type if image_type else "application/octet-stream"
    encoded = base64.b64encode(image.data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{encoded}"}}


def _assistant(message: AssistantMessage, *, native: bool) -> Json:
    requests = [part.tool_call_request for part in message.content if isinstance(part, ToolCallRequestPart)]
    text = _text(message)
    if requests and native:
        return {"role": "assistant", "content": text, "tool_calls": [_native_call(request) for request in requests]}
    return {"role": "assistant", "content": "\n".join(filter(None, [text, *map(_marked_call, requests)]))}


def _marked_call(call: ToolCallRequest) -> str:
    body = {"name": call.name, "arguments": call.arguments or {}}
    return f"[TOOL_REQUEST]{json.dumps(body, ensure_ascii=False)}[END_TOOL_REQUEST]"


def _native_call(call: ToolCallRequest) -> Json:
    arguments = json.dumps(call.arguments or {}, ensure_ascii=False)
    return {"type": "function", "id": call.id or call.name, "function": {"name": call.name, "arguments": arguments}}


def _text(message: SystemMessage | UserMessage | AssistantMessage) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart))


def _merge(messages: Iterable[Json]) -> list[Json]:
    """Return the messages with adjacent ones of one role merged, except for tools."""
    merged: list[Json] = []
    for role, group in groupby(messages, key=lambda message: str(message["role"])):
        adjacent = list(group)
        if role != "tool":
            calls = [call for message in adjacent for call in message.get("tool_calls", ())]
            content = _join([message["content"] for message in adjacent])
            adjacent = [{"role": role, "content": content} | ({"tool_calls": calls} if calls else {})]
        merged += adjacent
    return merged


def _join(contents: Sequence[str | list[Json]]) -> str | list[Json]:
    """Return contents as one: a string, or parts if one of them has parts."""
    parts = next((at for at, content in enumerate(contents) if not isinstance(content, str)), len(contents))
    text = "\n\n".join(str(content) for content in contents[:parts] if content)
    if parts == len(contents):
        return text
    before = _as_parts(text) if parts else []
    return [*before, *(part for content in contents[parts:] for part in _as_parts(content))]


def _as_parts(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _with_system(messages: list[Json], system_prompt: str, instructions: str) -> list[Json]:
    has_system = bool(messages) and messages[0]["role"] == "system"
    before = messages[0]["content"] if has_system else system_prompt
    content = "\n\n".join(filter(None, [before, instructions]))
    rest = messages[1:] if has_system else messages
    return [{"role": "system", "content": content}, *rest] if content or has_system else rest


SAMPLING: tuple[tuple[str, str, Any], ...] = (
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
    for ours, theirs, off in SAMPLING:
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
        EngineError: If another template is set: llama.cpp accepts one only when it loads a model.
    """
    arguments = {} if config.enable_thinking is None else {"enable_thinking": config.enable_thinking}
    switches, _ = _lines_before(config, loaded)
    arguments |= {name: value == "true" for name, value in _SWITCH.findall(switches)}
    return {"chat_template_kwargs": arguments} if arguments else {}


def with_thoughts(messages: Iterable[Json], config: LlmPredictionConfig, loaded: str) -> list[Json]:
    """Return messages with thoughts in a field of their own, if lines before the loaded template move them there."""
    _, tags = _lines_before(config, loaded)
    return [*messages] if tags is None else [_with_thought(message, tags) for message in messages]


def _with_thought(message: Json, tags: Tags) -> Json:
    content = message["content"]
    if message["role"] != "assistant" or tags.end not in content:
        return message
    text, *pieces = content.split(tags.start)
    thoughts: list[str] = []
    for piece in pieces:
        thought, end, rest = piece.partition(tags.end)
        if end:
            thoughts.append(thought.strip("\n"))
        text += (rest if text else rest.lstrip("\n")) if end else piece
    return {**message, "content": text, "reasoning_content": "\n\n".join(thoughts)}


_SWITCHES = re.compile(r"(?:\{%-? set \w+ = (?:true|false) -?%\}\n?)*")
_SWITCH = re.compile(r"set (\w+) = (true|false)")


def _lines_before(config: LlmPredictionConfig, loaded: str) -> tuple[str, Tags | None]:
    """Return what a template of the settings has before the one that was loaded: switches, and tags of thoughts."""
    template = config.prompt_template or {}
    if "type" not in template:
        return "", None
    jinja = template.get("jinjaPromptTemplate")
    source = str(jinja.get("template", "")) if is_object(jinja) else ""
    tags, rest = _split_moved(source)
    switches = rest.removesuffix(loaded)
    if not loaded or not rest.endswith(loaded) or not _SWITCHES.fullmatch(switches):
        raise unsupported(
            "promptTemplate",
            "a prompt template for a single prediction, unless it is the loaded one behind lines that set a switch or "
            "move reasoning",
            "Set a Jinja template as promptTemplate in the load config instead.",
        )
    return switches, tags


def _split_moved(template: str) -> tuple[Tags | None, str]:
    """Return the tags of lines at the beginning of a template that move thoughts, if there are any, and the rest."""
    try:
        with door("the measuring of chat templates"):
            from lmstudio_integrations.types.reasoning_replay import split_moved  # noqa: PLC0415 - a leaf
    except MissingLeafError:  # nobody sends such lines
        return None, template
    return split_moved(template)


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
