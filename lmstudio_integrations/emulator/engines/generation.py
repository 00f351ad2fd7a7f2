"""What all engines read alike from the settings of a prediction, and how they report their progress. Pure functions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.types.config import LlmPredictionConfig

CUT_OFF = {"title": "Failed to parse tool call: Unexpected end of content."}
"""The error of a tool call that ends before it is complete."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around reasoning, and whether reasoning is separated from the text."""

    start: str
    end: str
    enabled: bool = True


DEFAULT_TAGS = Tags("<think>", "</think>")

_USUAL_TAGS = (
    DEFAULT_TAGS,
    Tags("<|channel>thought", "<channel|>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
)


def reasoning_tags(config: LlmPredictionConfig) -> Tags:
    """Return the tags of the settings. An empty tag cannot be found in a text, so it disables the separation."""
    parsing = config.reasoning_parsing or {}
    start = str(parsing.get("startString", DEFAULT_TAGS.start))
    end = str(parsing.get("endString", DEFAULT_TAGS.end))
    return Tags(start, end, bool(parsing.get("enabled", True) and start and end))


def known_tags(template: str) -> Tags | None:
    """Return the tags around reasoning that a chat template knows; `None` if they are none of the usual ones."""
    return next((tags for tags in _USUAL_TAGS if knows(template, tags)), None)


def knows(template: str, tags: Tags) -> bool:
    """Return whether a chat template has these tags."""
    return tags.start.strip() in template and tags.end.strip() in template


def end_of_prompt(prompt: str, tags: Tags) -> str:
    """Return the tags at the end of a prompt, with white space: an opened or an empty block; empty if there is none."""
    start, end = re.escape(tags.start.strip()), re.escape(tags.end.strip())
    match = re.search(rf"{start}\s*(?:{end}\s*)?\Z", prompt)
    return match[0] if match else ""


def stop_strings(config: LlmPredictionConfig) -> list[str]:
    """Return everything at which generation stops: for the settings, tool calls and the prompt template."""
    of_template = (config.prompt_template or {}).get("stopStrings")
    return [
        *(config.stop_strings or ()),
        *(config.tool_call_stop_strings or ()),
        *(str(stop) for stop in (of_template if is_list(of_template) else ()) if stop),
    ]


def candidate_count(config: LlmPredictionConfig) -> int | None:
    """Return how many candidates to list for each token; `None` for no log-probabilities at all."""
    return None if config.log_probs is None or config.log_probs is False else config.log_probs


def overlap(text: str, strings: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the start of one of the strings."""
    longest = max(map(len, strings), default=0)
    sizes = range(min(longest - 1, len(text)), 0, -1)
    return next((size for size in sizes if any(string.startswith(text[-size:]) for string in strings)), 0)


def progress_details(total: int, processed: int, cached: int = 0) -> dict[str, int]:
    """Return the details of the progress of a prompt in tokens; `processed` includes what was in the cache."""
    return {
        "cachedTokenCount": cached,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed - cached,
        "unprocessedPromptTokenCount": total - processed,
    }
