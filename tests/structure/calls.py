"""The way of a call through the package: files and functions that the caller's thread visits.

`python -m tests.structure.calls` traces, for each way to stream a response, the first call of a process up to its first
chunk (cold), a second one (warm), and a token in the middle of a stream: one that has arrived with others before it
(token), and one for which the caller waits (awaited). `--json` prints the result for `--against FILE`, which prints
before and after.

Each way runs in a process of its own, together with a scripted emulator, which uses other threads. The numbers are the
same in each run, however slow the machine is: the model is loaded already, and what belongs together is delivered at
once, while the caller waits for it. The garbage collector is off meanwhile.
"""

import argparse
import asyncio
import gc
import json
import os
import queue
import re
import selectors
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypedDict

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.protocol.session import ClientSession

ROOT = Path(__file__).parents[2]
PACKAGE = f"{ROOT / 'lmstudio_integrations'}{os.sep}"
MODEL = "a-model"
MIDDLE = "five"
"""The last word of the first batch."""

RULE: dict[str, Any] = {"when": {}, "then": [{"text": f"one two three four {MIDDLE} six seven eight"}]}
"""What the model writes, in two batches."""

LAST_FRAMES = re.compile(rb'"type":"(rpcResult|rpcError|channelClose|channelError)"|"content":" ?' + MIDDLE.encode())
"""Frames that end a batch."""

LIMIT = 30.0
"""Seconds of one wait."""
IN_VAIN = f"nothing was delivered to a caller who has waited for {LIMIT} s"

SUBMITTED, WOKEN = "submitted", "woken"
"""Entries of a trace that are no files: the caller gives something to the I/O thread; the caller stops waiting."""

END = object()


class Trace:
    """A profile function that records which files of the package the thread visits."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.functions: Counter[str] = Counter()
        self.calls_back = 0
        """Calls into a file that is left further up the stack."""
        self._stack: list[str] = []
        self._imports = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Record that a frame is entered or left; what an import runs is not recorded."""
        code = frame.f_code
        if event == "call" and code.co_name == "call_soon_threadsafe":
            self.entries.append(SUBMITTED)
        if not code.co_filename.startswith(PACKAGE) or event not in {"call", "return"}:
            return
        if code.co_name == "<module>":
            self._imports += 1 if event == "call" else -1
        elif not self._imports and code.co_name not in {"<listcomp>", "<genexpr>", "<setcomp>", "<dictcomp>"}:
            self._record(code.co_filename.removeprefix(PACKAGE).replace(os.sep, "/"), code.co_qualname, event)

    def _record(self, file: str, function: str, event: str) -> None:
        if event == "return":
            if self._stack:  # a frame may have been entered before the trace began
                self._stack.pop()
            return
        self.calls_back += bool(self._stack) and self._stack[-1] != file and file in self._stack
        self._stack.append(file)
        self.entries.append(file)
        self.functions[f"{file}:{function}"] += 1

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()
        sys.setprofile(self)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()


class Numbers(TypedDict):
    """What is known of one traced call."""

    files: list[str]
    functions: int
    calls: int
    ways_out: list[list[str]]
    returns: int
    calls_back: int
    reentered: dict[str, int]


def ways_out(entries: Sequence[str]) -> list[list[str]]:
    """Return the files on each way out, runs collapsed.

    A way out begins with the call, or where the caller was woken, and ends where the I/O thread gets the last thing
    before the caller waits.
    """
    ways: list[list[str]] = []
    way: list[str] = []
    given = 0
    for entry in (*entries, WOKEN):
        if entry == WOKEN:
            if given:
                ways.append(way[:given])
            way, given = [], 0
        elif entry == SUBMITTED:
            given = len(way)
        elif way[-1:] != [entry]:
            way.append(entry)
    return ways


def reentered(ways: Sequence[Sequence[str]]) -> Counter[str]:
    """Return how often a way returns to a file that it has left."""
    counts: Counter[str] = Counter()
    for way in ways:
        counts.update({file: number - 1 for file, number in Counter(way).items() if number > 1})
    return counts


def numbers(trace: Trace) -> Numbers:
    """Return what a trace shows."""
    ways = ways_out(trace.entries)
    again = reentered(ways)
    return {
        "files": sorted({function.partition(":")[0] for function in trace.functions}),
        "functions": len(trace.functions),
        "calls": trace.functions.total(),
        "ways_out": ways,
        "returns": again.total(),
        "calls_back": trace.calls_back,
        "reentered": dict(again.most_common()),
    }


class _Current:
    """The trace that is being recorded."""

    trace = Trace()


class _Delivery:
    """What the I/O thread has received and not delivered yet. The caller and the I/O thread take turns."""

    lock = threading.Lock()
    """Held while a batch is delivered, so that a caller who is woken goes on after the whole of it."""
    caller_waits = False
    frames: ClassVar[dict[ClientSession, list[str | bytes]]] = {}
    """What each session has received of its next batch."""
    batches: ClassVar[deque[tuple[ClientSession, list[str | bytes], float]]] = deque()
    """The batches that are complete, each with its session and its time."""
    io_loop: asyncio.AbstractEventLoop | None = None


def _deliver() -> None:
    """Deliver a batch if the caller waits and there is one (on the I/O thread)."""
    with _Delivery.lock:
        if _Delivery.caller_waits and _Delivery.batches:
            _Delivery.caller_waits = False  # the next batch is for the next wait
            session, frames, now = _Delivery.batches.popleft()
            for frame in frames:
                _receive(session, frame, now)


_receive = ClientSession.receive


def _receive_batch(session: ClientSession, data: str | bytes, now: float) -> None:
    """Receive whole batches, each while the caller waits; in the place of `ClientSession.receive`."""
    if not session.ready:  # the result of authentication wakes no caller
        _receive(session, data, now)
        return
    _Delivery.io_loop = asyncio.get_running_loop()
    _Delivery.frames.setdefault(session, []).append(data)
    if LAST_FRAMES.search(data if isinstance(data, bytes) else data.encode()):
        _Delivery.batches.append((session, _Delivery.frames.pop(session), now))
        _deliver()


@contextmanager
def _wait() -> Iterator[None]:
    """Let the I/O thread deliver a batch while the block runs, in which the caller waits."""
    profile = sys.getprofile()
    sys.setprofile(None)  # the call below is none of the package's
    _Delivery.caller_waits = True
    if _Delivery.io_loop is not None:
        _Delivery.io_loop.call_soon_threadsafe(_deliver)
    yield
    with _Delivery.lock:
        _Delivery.caller_waits = False
    _Current.trace.entries.append(WOKEN)
    sys.setprofile(profile)


class _WholeBatches(queue.SimpleQueue[Any]):
    """The queue on which threads wait: the caller's never for a short time only."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return super().get(block, timeout)
        with _wait():
            try:
                return super().get(timeout=LIMIT)
            except queue.Empty:
                raise TimeoutError(IN_VAIN) from None


class _WholeBatchesSelector(selectors.DefaultSelector):
    """How the caller's event loop waits."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        with _wait():
            ready = super().select(LIMIT)
        if not ready:
            raise TimeoutError(IN_VAIN)
        return ready


Stream = Callable[[], Iterable[Any]]
AsyncStream = Callable[[], Awaitable[AsyncIterable[Any]]]


def trace_chunks(stream: Stream) -> Iterator[Trace]:
    """Make a call in this thread, and yield a trace for each chunk, the last one for the end."""

    def begin() -> Iterator[Any]:
        yield from stream()

    chunks = begin()
    chunk = None
    while chunk is not END:
        _Current.trace = Trace()
        with _Current.trace:
            chunk = next(chunks, END)
        yield _Current.trace


async def trace_async_chunks(stream: AsyncStream) -> AsyncIterator[Trace]:
    """Make a call in the loop that runs, and yield a trace for each chunk, the last one for the end."""

    async def begin() -> AsyncIterator[Any]:
        async for chunk in await stream():
            yield chunk

    chunks = begin()
    chunk = None
    while chunk is not END:
        _Current.trace = Trace()
        with _Current.trace:
            chunk = await anext(chunks, END)
        yield _Current.trace


def trace_twice(stream: Stream) -> dict[str, Trace]:
    """Trace two calls in this thread."""
    queue.SimpleQueue = _WholeBatches  # type: ignore[misc]  # nothing has fetched a queue of the client yet
    return phases(list(trace_chunks(stream)), list(trace_chunks(stream)))


def trace_twice_async(stream: AsyncStream) -> dict[str, Trace]:
    """Trace two calls in an event loop."""

    async def trace() -> dict[str, Trace]:
        first = [trace async for trace in trace_async_chunks(stream)]
        return phases(first, [trace async for trace in trace_async_chunks(stream)])

    def new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_WholeBatchesSelector())

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(trace())


def phases(first: Sequence[Trace], second: Sequence[Trace]) -> dict[str, Trace]:
    """Choose from the traces of the chunks of two calls."""
    awaited = next(trace for trace in second[1:] if WOKEN in trace.entries)
    return {"cold": first[0], "warm": second[0], "token": second[2], "awaited": awaited}


def _langchain(host: str) -> dict[str, Trace]:
    from lmstudio_integrations.langchain import ChatLMStudio

    model = ChatLMStudio(model=MODEL, host=host)
    return trace_twice(lambda: model.stream("hi"))


def _langchain_async(host: str) -> dict[str, Trace]:
    from lmstudio_integrations.langchain import ChatLMStudio

    model = ChatLMStudio(model=MODEL, host=host)

    async def stream() -> AsyncIterable[Any]:
        return model.astream("hi")

    return trace_twice_async(stream)


def _llama_index(host: str) -> dict[str, Trace]:
    from llama_index.core.llms import ChatMessage

    from lmstudio_integrations.llama_index import LMStudio

    model = LMStudio(model=MODEL, host=host)
    return trace_twice(lambda: model.stream_chat([ChatMessage("hi")]))


def _llama_index_async(host: str) -> dict[str, Trace]:
    from llama_index.core.llms import ChatMessage

    from lmstudio_integrations.llama_index import LMStudio

    model = LMStudio(model=MODEL, host=host)

    async def stream() -> AsyncIterable[Any]:
        return await model.astream_chat([ChatMessage("hi")])

    return trace_twice_async(stream)


def _native(host: str) -> dict[str, Trace]:
    with lms.Client(host) as client:
        return trace_twice(lambda: client.llm.model(MODEL).respond_stream("hi"))


def _native_async(host: str) -> dict[str, Trace]:
    client = lms.AsyncClient(host)

    async def stream() -> AsyncIterable[Any]:
        model = await client.llm.model(MODEL)
        return await model.respond_stream("hi")

    return trace_twice_async(stream)


SURFACES: dict[str, Callable[[str], dict[str, Trace]]] = {
    "ChatLMStudio.stream": _langchain,
    "ChatLMStudio.astream": _langchain_async,
    "LMStudio.stream_chat": _llama_index,
    "LMStudio.astream_chat": _llama_index_async,
    "LLM.respond_stream": _native,
    "AsyncLLM.respond_stream": _native_async,
}


def measure_here(surface: str) -> dict[str, Numbers]:
    """Trace one way to stream in this process, which must not have used the package before."""
    ClientSession.receive = _receive_batch  # type: ignore[method-assign, assignment]
    with Emulator([ModelEntry(key=MODEL, rules=(RULE,))], load=[MODEL]) as server:
        traces = SURFACES[surface](server.address)
    return {phase: numbers(trace) for phase, trace in traces.items()}


def measure(surface: str) -> dict[str, Numbers]:
    """Trace one way to stream in a process of its own."""
    command = [sys.executable, "-m", "tests.structure.calls", "--here", surface]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    result: dict[str, Numbers] = json.loads(ran.stdout)
    return result


Results = Mapping[str, Mapping[str, Numbers]]


def report(results: Results) -> Iterator[str]:
    """Yield the lines of the report."""
    yield _row("", "", "files", "functions", "calls", "returns", "calls back")
    for surface, phases in results.items():
        for phase, found in phases.items():
            yield _row(surface, phase, *_columns(found))
    for surface, phases in results.items():
        for phase in ("cold", "warm", "awaited"):
            yield f"\n{surface}, {phase}: the ways out"
            yield from (f"  {' > '.join(way)}" for way in phases[phase]["ways_out"])
            yield from (f"  {number:3} returns to {file}" for file, number in phases[phase]["reentered"].items())


def compare(before: Results, after: Results) -> Iterator[str]:
    """Yield the numbers before and after."""
    yield _row("", "", "files", "functions", "calls", "returns", "calls back")
    for surface, phases in after.items():
        for phase, found in phases.items():
            known = before.get(surface, {}).get(phase)
            earlier = _columns(known) if known else ("-",) * len(_columns(found))
            yield _row(surface, phase, *(f"{old} > {new}" for old, new in zip(earlier, _columns(found), strict=True)))


def _columns(found: Numbers) -> tuple[int, ...]:
    return len(found["files"]), found["functions"], found["calls"], found["returns"], found["calls_back"]


def _row(surface: str, phase: str, *cells: object) -> str:
    return f"{surface:24} {phase:8}" + "".join(f"{cell!s:>13}" for cell in cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trace all ways to stream and print what was found."""
    parser = argparse.ArgumentParser(description="trace the way of a call through the package")
    parser.add_argument("--here", choices=SURFACES, help="trace this one, in this process, and print JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--against", type=Path, help="compare with the JSON of an earlier run")
    chosen = parser.parse_args(arguments)
    if chosen.here:
        print(json.dumps(measure_here(chosen.here)))
        return
    results = {surface: measure(surface) for surface in SURFACES}
    if chosen.json:
        print(json.dumps(results, indent=1))
    elif chosen.against:
        print(*compare(json.loads(chosen.against.read_text(encoding="utf-8")), results), sep="\n")
    else:
        print(*report(results), sep="\n")


if __name__ == "__main__":
    main()
