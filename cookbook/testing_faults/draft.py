"""An article that a model writes; `test_draft.py` tests it under faults."""

import time

from lmstudio_integrations import LMStudioError
from lmstudio_integrations.langchain import ChatLMStudio

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)


class Draft:
    """An article: the headline at once, the rest on request."""

    def __init__(self, host: str, wait: float = 60.0) -> None:
        self.model = ChatLMStudio(
            model="qwen/qwen3-4b",
            host=host,
            timeouts={
                "connect_timeout": wait,
                "load_timeout": wait,
                "queue_timeout": wait,
                "first_token_timeout": wait,
                "idle_timeout": wait,
            },
        )

    def headline(self, topic: str) -> str:
        """Return the first line, after some attempts if need be."""
        for pause in PAUSES:
            try:
                return self._first_line(topic)
            except LMStudioError:
                time.sleep(pause)
        return self._first_line(topic)

    def _first_line(self, topic: str) -> str:
        self.chunks = self.model.stream(f"Write about {topic}, with a headline.")
        line = ""
        while "\n" not in line:
            line += next(self.chunks).text
        return line.partition("\n")[0]

    def rest(self) -> str:
        """Return what follows the headline."""
        return "".join(chunk.text for chunk in self.chunks)

    def close(self) -> None:
        """Stop the model, whatever it still writes."""
        self.model.close()
