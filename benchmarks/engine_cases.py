"""The cases of the benchmark `engine`: what both backends are asked, and how one measurement is taken.

`engine` asks for a case, `engine_backends` takes the measurement, and both read the same tables here.
"""

import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal, Protocol, TypeAlias

from benchmarks.meter import expect

TOKENS = 128
"""The length of each response. The tokens that end a sequence are forbidden, so no response is shorter."""

PROMPT_WORDS, TEXT_WORDS, TEXTS = 60, 20, 64

MOST_CALLERS = 4
"""No case has more callers at once."""

END_TOKENS = (0, 2)
"""`<|endoftext|>` and `<|im_end|>` of the bundled model."""

SETTINGS: Mapping[str, object] = {
    "llm.prediction.seed": {"checked": True, "value": 7},
    "llm.prediction.maxPredictedTokens": {"checked": True, "value": TOKENS},
    "llm.prediction.llama.logitBias": [[token, "-inf"] for token in END_TOKENS],
}
"""Settings of a prediction by their wire keys; the others have LM Studio's defaults."""

_WORDS = (
    "harbor lantern river copper window garden thunder paper mountain silver engine basket morning velvet island market"
)

Unit: TypeAlias = Literal["tokens/s", "ms", "texts/s"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: so many callers at once, each of which sends its share of the work.

    Attributes:
        title: Its name in the table.
        work: What a caller does.
        callers: How many do it at once.
        batch: How many texts are embedded by one call.
    """

    title: str
    work: Literal["generate", "embed"]
    callers: int = 1
    batch: int = 1


CASES: Mapping[str, Case] = {
    "generate_1": Case("one response", "generate"),
    "generate_4": Case("four responses at once", "generate", callers=MOST_CALLERS),
    "embed_1": Case("texts one after another", "embed"),
    "embed_4": Case("texts of four callers at once", "embed", callers=MOST_CALLERS),
    "embed_64": Case("a batch of 64 texts", "embed", batch=TEXTS),
}

Measurement: TypeAlias = dict[Unit, float]
"""What one run of a case measures; `ms` is the time to the first token, the median over the callers."""


class Backend(Protocol):
    """The engine called directly, or the emulator through our client. Several threads call it at once."""

    def generate(self, system: str, prompt: str, on_token: Callable[[], None]) -> int:
        """Generate a response, call `on_token` for each part of it, and return its number of tokens."""
        ...

    def embed(self, texts: list[str]) -> int:
        """Embed texts with one call and return the number of vectors."""
        ...


def conversation(number: int) -> tuple[str, str]:
    """Return the system prompt and the message of a prediction.

    They differ from the first word on, so that nothing of an earlier prompt is found in the cache.
    """
    return f"{number} is your number. You are a helpful assistant.", f"{_words(number, PROMPT_WORDS)}. Continue."


def texts(number: int) -> list[str]:
    """Return the texts of one run, different for each number."""
    return [f"{number} {at} {_words(number * TEXTS + at, TEXT_WORDS)}" for at in range(TEXTS)]


def shares(items: list[str], callers: int, batch: int) -> list[list[list[str]]]:
    """Return the batches of each caller."""
    return [
        [own[at : at + batch] for at in range(0, len(own), batch)]
        for own in (items[n::callers] for n in range(callers))
    ]


def measure(backend: Backend, case: Case, number: int) -> Measurement:
    """Run a case once.

    Args:
        backend: What is measured.
        case: The case.
        number: A number that no other run on this backend has, whatever its case.
    """
    return _MEASURES[case.work](backend, case, number)


def _generate(backend: Backend, case: Case, number: int) -> Measurement:
    requests = [conversation(number * MOST_CALLERS + at) for at in range(case.callers)]
    runs, seconds = _at_once([partial(_first_token, backend, *request) for request in requests])
    return {"tokens/s": TOKENS * case.callers / seconds, "ms": median(runs) * 1e3}


def _first_token(backend: Backend, system: str, prompt: str) -> float:
    """Return the seconds to the first token of a response, after reading all of it."""
    started, times = time.perf_counter(), list[float]()
    count = backend.generate(system, prompt, lambda: times.append(time.perf_counter()))
    expect(count, TOKENS)
    return times[0] - started


def _embed(backend: Backend, case: Case, number: int) -> Measurement:
    def work(batches: list[list[str]]) -> float:
        for batch in batches:
            expect(backend.embed(batch), len(batch))
        return 0.0

    _, seconds = _at_once([partial(work, own) for own in shares(texts(number), case.callers, case.batch)])
    return {"texts/s": TEXTS / seconds}


def _at_once(works: list[Callable[[], float]]) -> tuple[list[float], float]:
    """Run each work in a thread of its own; return the results and the seconds that all took."""
    with ThreadPoolExecutor(len(works)) as pool:
        started = time.perf_counter()
        running = [pool.submit(work) for work in works]
        results = [each.result() for each in running]
        return results, time.perf_counter() - started


def _words(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS.split(), k=count))


_MEASURES: Mapping[str, Callable[[Backend, Case, int], Measurement]] = {"generate": _generate, "embed": _embed}
