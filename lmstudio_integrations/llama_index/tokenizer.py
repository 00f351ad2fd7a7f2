"""`LMStudioTokenizer`: the model's own tokens for LlamaIndex's `Settings.tokenizer`."""

from functools import lru_cache

from lmstudio_integrations.llama_index.llms import LMStudio

_REMEMBERED = 4096


class LMStudioTokenizer:
    """Turns texts into tokens as the model does, by asking the server.

    Without it, LlamaIndex counts with a tokenizer of OpenAI's, and prompts that it believes to fit may not. Each new
    text is a round trip; texts that were seen before are not asked for again.

    Args:
        llm: The model.

    Example:
        ```python
        from llama_index.core import Settings

        Settings.tokenizer = LMStudioTokenizer(Settings.llm)
        ```
    """

    def __init__(self, llm: LMStudio) -> None:
        self.llm = llm
        self._tokens = lru_cache(_REMEMBERED)(self._ask)

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            LMStudioServerError: If the server cannot answer.
        """
        return list(self._tokens(text)) if text else []

    def _ask(self, text: str) -> tuple[int, ...]:
        return tuple(self.llm.tokenize(text))

    def __reduce__(self) -> tuple[type["LMStudioTokenizer"], tuple[LMStudio]]:
        return type(self), (self.llm,)
