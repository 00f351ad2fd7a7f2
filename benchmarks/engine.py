"""Measure the emulator's llama.cpp engine beside the same engine called directly, and print a table.

`python -m benchmarks.engine [--rounds N] [--only CASE]`

Both backends load the bundled weights with the same parameters and generate with the same settings. `directly` is the
engine's library, called in the process that loaded it. The emulator is one process, its workers are others, and our
client is another. Throughput is wall time, so it depends on what else runs on the machine. Each round runs each case on
both backends, which take turns in going first; a ratio is the median of the ratios of the rounds.

`python -m benchmarks.engine server|directly|emulator [ADDRESS]` is what the command starts: `server` prints the address
of an emulator and serves until its input ends. The two backends print `ready`, then read lines of `CASE NUMBER` and
print a measurement for each, as JSON.
"""

import argparse
import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple, Protocol, TypeAlias

import lmstudio_integrations as lms
from benchmarks.environment import Process
from benchmarks.programs import expect
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines import weights
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, load_parameters, request_body, worker_main
from lmstudio_integrations.emulator.models import catalog
from lmstudio_integrations.emulator.models.clock import SystemClock
from lmstudio_integrations.emulator.models.registry import ModelRegistry
from lmstudio_integrations.emulator.testing.request_log import RequestLog
from lmstudio_integrations.protocol import defaults
from lmstudio_integrations.types.config import LlmPredictionConfig

CALLERS = 4
"""The most callers at once; as many slots as each model has."""

MODELS = (
    ModelEntry(key="chat", weights="smollm2-135m-instruct", context_length=2048, slots=CALLERS, preload=True),
    ModelEntry(
        key="embedding", kind="embedding", weights="text-embedding-all-minilm-l6-v2", slots=CALLERS, preload=True
    ),
)

TOKENS = 128
"""The length of each response. The tokens that end a sequence are forbidden, so no response is shorter."""

PROMPT_WORDS, TEXT_WORDS, TEXTS = 60, 20, 64

END_TOKENS = (0, 2)
"""`<|endoftext|>` and `<|im_end|>` of the bundled model."""

SETTINGS: Mapping[str, object] = {
    "llm.prediction.seed": {"checked": True, "value": 7},
    "llm.prediction.maxPredictedTokens": {"checked": True, "value": TOKENS},
    "llm.prediction.llama.logitBias": [[token, "-inf"] for token in END_TOKENS],
}
"""Settings of a prediction by their wire keys; the others have LM Studio's defaults."""

TARGET = 0.95
"""What each ratio should be at least: 1 is as fast as the engine itself, less is slower."""

_WORDS = (
    "harbor lantern river copper window garden thunder paper mountain silver engine basket morning velvet island market"
)

Measurement: TypeAlias = dict[str, float]
"""What one run of a case measures, by unit; `ms` is the time to the first token, the median over the callers."""


class Backend(Protocol):
    """The engine called directly, or the emulator through our client. Several threads call it at once."""

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        """Generate a response, call `on_token` for each part of it, and return its number of tokens."""
        ...

    def embed(self, texts: list[str]) -> int:
        """Embed texts with one call and return the number of vectors."""
        ...


class Directly:
    """llama.cpp in this process, called as its library offers it."""

    def __init__(self) -> None:
        self._engine = importlib.import_module("xllamacpp")
        self._chat, self._embedding = map(self._load, MODELS)
        config = LlmPredictionConfig.from_fields(defaults.effective(defaults.PREDICTION, SETTINGS))
        self._sampling = request_body.sampling(config)

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        body = {**self._sampling, "messages": messages, "max_tokens": TOKENS, "stream": True}
        last: dict[str, Any] = {}

        def receive(chunk: Mapping[str, Any]) -> bool:
            if chunk["choices"][0]["delta"].get("content"):
                on_token()
            last.update(chunk)
            return False  # which does not cancel

        self._chat.handle_chat_completions(body, receive)
        return int(last["timings"]["predicted_n"])

    def embed(self, texts: list[str]) -> int:
        return len(self._embedding.handle_embeddings({"input": texts})["data"])

    def _load(self, entry: ModelEntry) -> Any:
        """Load a model with the parameters that the emulator sends to its worker."""
        engines = {"llama_cpp": LlamaCppEngine()}
        registry = ModelRegistry(catalog.Catalog((entry,)), engines, SystemClock(), request_log=RequestLog(1, 1))
        request = registry.load_request(entry, {}, registry.local)
        find = load_parameters.file_of(request.weights, offline=False, announce=weights.announce_on_stderr)
        path = asyncio.run(find)
        header, threads = load_parameters.header_of(path), load_parameters.spare_threads()
        parameters = load_parameters.parameters_of(request, path, header, threads=threads, memory=0)
        server, _ = worker_main.start(parameters, self._engine)
        return server


class ThroughEmulator:
    """The emulator, called through our client."""

    def __init__(self, address: str) -> None:
        client = lms.Client(address)
        self._chat, self._embedding = client.llm.model("chat"), client.embedding.model("embedding")

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        chat = lms.Chat(system)
        chat.add_user_message(prompt)
        stream = self._chat.respond_stream(chat, config={"raw": SETTINGS})
        for _ in stream:
            on_token()
        return stream.result().stats.predicted_tokens_count or 0

    def embed(self, texts: list[str]) -> int:
        return len(self._embedding.embed(texts))


def _generate(backend: Backend, callers: int, number: int) -> Measurement:
    """Let each caller generate a response. The prompts differ from the first word on, so that no cache has them."""

    def first_token(caller: int) -> float:
        words = _words(number * CALLERS + caller, PROMPT_WORDS)
        system = f"{number * CALLERS + caller} is your number. You are a helpful assistant."
        started, times = time.perf_counter(), list[float]()
        expect(backend.generate(system, f"{words}. Continue.", lambda: times.append(time.perf_counter())), TOKENS)
        return times[0] - started

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        first = list(pool.map(first_token, range(callers)))
    return {"tokens/s": TOKENS * callers / (time.perf_counter() - started), "ms": median(first) * 1e3}


def _embed(backend: Backend, callers: int, number: int, batch: int = 1) -> Measurement:
    """Let each caller embed its share of the texts, which differ from run to run."""
    texts = [f"{number} {at} {_words(number * TEXTS + at, TEXT_WORDS)}" for at in range(TEXTS)]

    def embed(own: list[str]) -> None:
        for at in range(0, len(own), batch):
            part = own[at : at + batch]
            expect(backend.embed(part), len(part))

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(embed, [texts[caller::callers] for caller in range(callers)]))
    return {"texts/s": TEXTS / (time.perf_counter() - started)}


def _words(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS.split(), k=count))


class Case(NamedTuple):
    """A title, and what measures the case: it gets the backend and a number that no other run on the backend has."""

    title: str
    measure: Callable[[Backend, int], Measurement]


CASES = {
    "generate_1": Case("one response", lambda backend, number: _generate(backend, 1, number)),
    "generate_4": Case("four responses at once", lambda backend, number: _generate(backend, CALLERS, number)),
    "embed_1": Case("texts one after another", lambda backend, number: _embed(backend, 1, number)),
    "embed_4": Case("texts of four callers at once", lambda backend, number: _embed(backend, CALLERS, number)),
    "embed_64": Case("a batch of 64 texts", lambda backend, number: _embed(backend, 1, number, batch=TEXTS)),
}


def _measure(backends: Mapping[str, Process], cases: list[str], count: int) -> dict[str, list[dict[str, Measurement]]]:
    """Measure each case once a round, after one round that only warms up."""
    rounds: dict[str, list[dict[str, Measurement]]] = {case: [] for case in cases}
    for number in range(count + 1):
        print(f"round {number} of {count}", file=sys.stderr)
        names = sorted(backends, reverse=number % 2 == 1)
        for at, case in enumerate(cases):
            order = f"{case} {number * len(cases) + at}"
            measured = {name: json.loads(backends[name].ask(order)) for name in names}
            if number:
                rounds[case].append(measured)
    return rounds


def _row(case: str, unit: str, rounds: list[dict[str, Measurement]]) -> str:
    directly, emulator = ([each[name][unit] for each in rounds] for name in ("directly", "emulator"))
    ratios = [ours / theirs for ours, theirs in zip(emulator, directly, strict=True)]
    share = median(1 / each if unit == "ms" else each for each in ratios)
    missed = "" if share >= TARGET else ", **missed**"
    return f"| {CASES[case].title} | {unit} | {median(directly):.1f} | {median(emulator):.1f} | {share:.2f}{missed} |"


def _compare(cases: list[str], count: int) -> None:
    with (
        Process(sys.executable, "benchmarks.engine", "server") as server,
        Process(sys.executable, "benchmarks.engine", "directly") as directly,
        Process(sys.executable, "benchmarks.engine", "emulator", server.read()) as emulator,
    ):
        backends = {"directly": directly, "emulator": emulator}
        for process in backends.values():
            process.read()
        rounds = _measure(backends, cases, count)
    print("| case | unit | directly | emulator | ratio |\n| --- | --- | --- | --- | --- |")
    for case, measured in rounds.items():
        for unit in measured[0]["directly"]:
            print(_row(case, unit, measured))


def _serve_measurements(backend: Backend) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        case, number = line.split()
        print(json.dumps(CASES[case].measure(backend, int(number))), flush=True)


def main() -> None:
    """Compare, or be one of the processes."""
    match sys.argv[1:]:
        case ["server"]:
            with Emulator(MODELS) as emulator:
                print(emulator.address, flush=True)
                sys.stdin.read()
        case ["directly"]:
            _serve_measurements(Directly())
        case ["emulator", address]:
            _serve_measurements(ThroughEmulator(address))
        case _:
            parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
            parser.add_argument("--rounds", type=int, default=7, help="how often each case is measured")
            parser.add_argument("--only", choices=CASES, help="one case instead of all")
            arguments = parser.parse_args()
            _compare([case for case in CASES if arguments.only in {None, case}], arguments.rounds)


if __name__ == "__main__":
    main()
