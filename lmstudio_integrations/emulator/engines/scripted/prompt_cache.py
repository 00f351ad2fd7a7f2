"""What a scripted model says of its prompt cache: a prompt that begins like an earlier one is partly in it."""

from collections import deque
from itertools import accumulate

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.engines.scripted import chat_template, words
from lmstudio_integrations.emulator.engines.scripted.rules import offered
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint, fingerprint_of

_PROMPTS = 64
"""The prompts that one model has in its cache."""


class PromptCache:
    """The last prompts of one model, whole messages of which count as cached. Raw prompts are never in it."""

    def __init__(self) -> None:
        self._fingerprints: deque[PromptFingerprint] = deque(maxlen=_PROMPTS)

    def add(self, request: GenerateRequest) -> int:
        """Add the prompt of a prediction; return how many of its tokens were in the cache before."""
        if request.history is None:
            return 0
        messages, tools = request.history.messages, offered(request)
        fingerprint = fingerprint_of(request.history.to_dict()["messages"], [tool.to_dict() for tool in tools])
        # A copy, because long prompts are read in other threads.
        common = max((fingerprint.common_with(each) for each in self._fingerprints.copy()), default=0)
        self._fingerprints.append(fingerprint)
        ends = accumulate(len(message.content) for message in messages)
        whole = [message for message, end in zip(messages, ends, strict=True) if end < common]  # the tools are a part
        if not common:
            return 0
        template = request.config.prompt_template
        before_answer = words.count(chat_template.render([], [], template))
        return words.count(chat_template.render(whole, tools, template)) - before_answer
