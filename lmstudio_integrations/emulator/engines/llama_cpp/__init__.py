"""The llama.cpp engine: models with real weights, each in a worker process.

Other modules of the package import from here only. Nothing here imports llama.cpp: `worker_main.py` does, in its own
process.
"""

from lmstudio_integrations.emulator.engines.llama_cpp.engine import LlamaCppEngine, LlamaCppModel
from lmstudio_integrations.emulator.engines.llama_cpp.load_parameters import header_of, is_embedding
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import memory_limit, memory_of_machine

__all__ = ["LlamaCppEngine", "LlamaCppModel", "header_of", "is_embedding", "memory_limit", "memory_of_machine"]
