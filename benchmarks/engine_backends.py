"""The processes of the benchmark `engine`.

`python -m benchmarks.engine_backends server|direct|emulator [ADDRESS]`

`server` prints the address of an emulator and serves until its input ends. The two backends print `ready`, then read
lines of `CASE NUMBER` and print a measurement for each, as JSON: `direct` is llama.cpp in this process, loaded with the
parameters that the emulator sends to its worker; `emulator` is our client of the server.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lmstudio_integrations as lms
from benchmarks.engine_cases import CASES, SETTINGS, TOKENS, Backend, measure
from lmstudio_integrations.emulator import Emulator, catalog, defaults, weights
from lmstudio_integrations.emulator.clock import SystemClock
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters, request_body, worker
from lmstudio_integrations.emulator.limits import DEFAULT_LIMITS
from lmstudio_integrations.emulator.records import Records
from lmstudio_integrations.emulator.registry import ModelRegistry
from lmstudio_integrations.types.config import LlmPredictionConfig

CATALOG = Path(__file__).with_name("engine.toml")


class Direct:
    """llama.cpp in this process, called as its library offers it."""

    def __init__(self) -> None:
        self._engine = importlib.import_module("xllamacpp")
        loaded = {entry.kind: self._load(entry) for entry in catalog.load(CATALOG).models}
        self._chat, self._embedding = loaded["llm"], loaded["embedding"]
        config = LlmPredictionConfig.from_fields(defaults.effective(defaults.PREDICTION, SETTINGS))
        self._sampling = request_body.sampling(config)

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        """Generate a response, call `on_token` for each part of it, and return its number of tokens."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        body = {**self._sampling, "messages": messages, "max_tokens": TOKENS, "stream": True}
        last: dict[str, Any] = {}
        self._chat.handle_chat_completions(body, partial(_receive, on_token, last))
        return int(last["timings"]["predicted_n"])

    def embed(self, texts: list[str]) -> int:
        """Embed texts with one call and return the number of vectors."""
        return len(self._embedding.handle_embeddings({"input": texts})["data"])

    def _load(self, entry: catalog.ModelEntry) -> Any:
        """Load a model with the parameters that the emulator loads it with."""
        engines = {"llama_cpp": LlamaCppEngine()}
        registry = ModelRegistry(catalog.Catalog((entry,)), engines, SystemClock(), records=Records(DEFAULT_LIMITS))
        request = registry.load_request(entry, {})
        find = load_parameters.file_of(request.weights, offline=False, announce=weights.announce_on_stderr)
        path = asyncio.run(find)
        header, threads = load_parameters.header_of(path), load_parameters.spare_threads()
        parameters = load_parameters.parameters_of(request, path, header, threads=threads, memory=0)
        server, _ = worker.start(parameters, self._engine)
        return server


class ThroughEmulator:
    """The emulator, called through our client."""

    def __init__(self, address: str) -> None:
        client = lms.Client(address)
        self._chat, self._embedding = client.llm.model("chat"), client.embedding.model("embedding")

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        """Generate a response, call `on_token` for each part of it, and return its number of tokens."""
        chat = lms.Chat(system)
        chat.add_user_message(prompt)
        stream = self._chat.respond_stream(chat, config={"raw": SETTINGS})
        for _ in stream:
            on_token()
        return stream.result().stats.predicted_tokens_count or 0

    def embed(self, texts: list[str]) -> int:
        """Embed texts with one call and return the number of vectors."""
        return len(self._embedding.embed(texts))


def _receive(on_token: Callable[[], None], last: dict[str, Any], chunk: Mapping[str, Any]) -> bool:
    """Receive a chunk of the engine; keep the last one. Returning `True` would cancel."""
    if chunk["choices"][0]["delta"].get("content"):
        on_token()
    last.update(chunk)
    return False


BACKENDS: Mapping[str, Callable[..., Backend]] = {"direct": Direct, "emulator": ThroughEmulator}


def main(name: str, *arguments: str) -> None:
    """Serve, or measure what is requested, until the input ends."""
    if name == "server":
        with Emulator(catalog=CATALOG) as emulator:
            print(emulator.address, flush=True)
            sys.stdin.read()
        return
    backend = BACKENDS[name](*arguments)
    print("ready", flush=True)
    for line in sys.stdin:
        case, number = line.split()
        print(json.dumps(measure(backend, CASES[case], int(number))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
