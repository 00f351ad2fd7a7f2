"""What an import costs: the CPU of a fresh process, above what it has imported already."""

import subprocess
from pathlib import Path

from benchmarks.environment import ROOT, variables
from benchmarks.targets import FLOOR, OURS

_BEFORE = {
    "native": "",
    "langchain": (
        "from langchain_core.embeddings import Embeddings\n"
        "from langchain_core.language_models import BaseChatModel, BaseLLM\n"
    ),
    "llama_index": "import llama_index.core\n",
}
"""What every adapter needs; it is not counted."""

STATEMENTS: dict[str, dict[str, str]] = {
    FLOOR: {"native": "from pydantic import BaseModel\nfrom websockets.asyncio.client import connect"},
    OURS: {
        "native": "from lmstudio_integrations import AsyncClient, Client",
        "langchain": "from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM",
        "llama_index": "from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding",
    },
    "official SDK": {"native": "from lmstudio import AsyncClient, Client"},
    "Ollama": {
        "langchain": "from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM",
        "llama_index": "from llama_index.llms.ollama import Ollama",
    },
    "OpenAI": {"langchain": "from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings"},
    "lmstudio": {"llama_index": "from llama_index.llms.lmstudio import LMStudio"},
    "openai-like": {"llama_index": "from llama_index.llms.openai_like import OpenAILike"},
}
"""What is measured, by role and case; the native floor is what every client of this kind needs."""


class Importer:
    """Measures the imports of one role, each time in a fresh process.

    Args:
        python: The interpreter.
        role: Whose imports.
        checkout: The checkout whose code is imported, for ours.
    """

    def __init__(self, python: Path, role: str, *, checkout: Path = ROOT) -> None:
        self._python = python
        self._checkout = checkout
        self._statements = STATEMENTS[role]
        self.cases: list[str] = list(self._statements)
        """What it can measure."""

    def measure(self, case: str) -> float:
        """Import once and return the milliseconds."""
        program = (
            f"import time\n{_BEFORE[case]}started = time.process_time()\n{self._statements[case]}\n"
            "print((time.process_time() - started) * 1e3)"
        )
        command = [str(self._python), "-c", program]
        done = subprocess.run(
            command, cwd=self._checkout, env=variables(), check=True, stdout=subprocess.PIPE, text=True
        )
        return float(done.stdout)
