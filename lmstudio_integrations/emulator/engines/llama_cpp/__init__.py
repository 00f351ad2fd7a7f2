"""The llama.cpp engine: models with real weights, each in a worker process.

A leaf: `engines/table.py` names its class. Nothing here imports llama.cpp: `worker_main.py` does, in its own process.
"""

from lmstudio_integrations.emulator.engines.llama_cpp.engine import LlamaCppEngine, LlamaCppModel

__all__ = ["LlamaCppEngine", "LlamaCppModel"]
