"""`LMStudioTokenizer`: the model's own tokens for LlamaIndex's `Settings.tokenizer`."""

from functools import lru_cache

from lmstudio_integrations._support.text import shown
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index.llms import LMStudio

_CACHE_SIZE = 4096


class LMStudioTokenizer:
    """Tokenizes texts with the model's own tokenizer, on the server.

    LlamaIndex's default is a tokenizer of OpenAI, whose counts may be too low for the context window. Each new text is
    a round trip; the results of recent texts are cached.

    Args:
        llm: The model.

    Example:
        ```python
        from llama_index.core import Settings

        from lmstudio_integrations.llama_index import LMStudio, LMStudioTokenizer

        Settings.tokenizer = LMStudioTokenizer(LMStudio(model="qwen2.5-7b-instruct"))
        ```
    """

    def __init__(self, llm: LMStudio) -> None:
        if not hasattr(llm, "tokenize"):
            raise LMStudioValueError(f"llm must be an LMStudio; got {shown(llm)}; write LMStudio(model=…)")
        self.llm = llm
        self._tokens = lru_cache(_CACHE_SIZE)(llm.tokenize)

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            LMStudioServerError: If the server fails.
        """
        return list(self._tokens(text)) if text else []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.llm!r})"

    def __reduce__(self) -> tuple[type["LMStudioTokenizer"], tuple[LMStudio]]:
        return type(self), (self.llm,)
