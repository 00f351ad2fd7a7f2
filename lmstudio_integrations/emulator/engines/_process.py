"""A worker process and the HTTP client that speaks to it: start, call, stream, notice its death, end it.

Knows nothing of models or predictions: JSON bodies in, JSON answers and chunks out.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator.engines import worker as worker_module
from lmstudio_integrations.emulator.engines._refusals import INSTALL_HINT, crashed, from_engine, not_loaded
from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.protocol.envelope import without_surrogates

logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0
"""The longest that a stream may be silent: the engine says something after each part of a prompt."""

CALL_SECONDS = 120.0
"""The longest that a call without a stream may take, from its first byte to the last: tokens, templates, vectors."""

LARGE_CALL = 1_000_000
"""From so many bytes on, a call may take seconds."""

GRACE_SECONDS = 2.0
"""How long a worker that should end, or seems to have ended, may take for it."""

_DATA, _ERROR = "data: ", "error: "
_LAST_WORDS = 4096


class Worker:
    """One running worker. Belongs to the event loop that started it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = b""
        self._listener = asyncio.create_task(self._listen())
        self._client: Any = None
        self._large_calls = asyncio.Lock()
        self._transport_error: type[Exception] = OSError
        self._closed = False

    @classmethod
    async def start(cls, parameters: worker_module.WorkerParameters, *, seconds: float) -> "Worker":
        """Start a worker and wait until its model is loaded; a cancel ends it.

        Raises:
            EngineError: If the model cannot be loaded, or not in time.
        """
        # By its path and without the current directory: it needs nothing of the package, and starts sooner so.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(Path(worker_module.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        try:
            answer = await asyncio.wait_for(worker._hand_over(parameters), seconds)
            worker._connect(await asyncio.to_thread(_http_library), answer)
        except TimeoutError:
            await worker._kill()
            raise not_loaded(f"the model did not load within {seconds:g} s") from None
        except BaseException:
            await worker._kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer to a short call; without a body it is a GET.

        Raises:
            EngineError: If the engine refuses, or is gone.
        """
        method, content = ("GET", None) if body is None else ("POST", encode(body))
        # Large calls one by one: none waits for the others while its time runs.
        async with self._large_calls if content and len(content) > LARGE_CALL else contextlib.nullcontext():
            response = await self._request(method, path, content)
        payload = decode(response.text)
        if response.status_code >= 400:
            raise from_engine(payload)
        return payload

    async def _request(self, method: str, path: str, content: bytes | None) -> Any:
        self._check_open()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._client.request(method, path, content=content, timeout=None)
        except (self._transport_error, TimeoutError) as error:
            raise await self._lost(error) from error

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer. Closing the generator closes the connection, which cancels.

        Raises:
            EngineError: If the engine refuses, or is gone.
        """
        self._check_open()
        try:
            async with self._client.stream("POST", path, content=encode(body)) as response:
                if response.status_code >= 400:
                    raise from_engine(decode((await response.aread()).decode("utf-8", "replace")))
                lines = Lines()
                async for data in response.aiter_bytes():
                    for line in lines.feed(data):
                        chunk = read_line(line)
                        if chunk is not None:
                            yield chunk
        except self._transport_error as error:
            raise await self._lost(error) from error

    async def close(self) -> None:
        """End the worker: close its input, wait, terminate, kill."""
        self._closed = True
        await self._client.aclose()
        assert self._process.stdin is not None, "the process was started with pipes"
        self._process.stdin.close()
        if not await self._ended():
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._ended()
        await self._kill()

    async def _hand_over(self, parameters: worker_module.WorkerParameters) -> dict[str, Any]:
        assert self._process.stdin is not None, "the process was started with pipes"
        assert self._process.stdout is not None, "the process was started with pipes"
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(f"{parameters.to_json()}\n".encode())
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            await self._listener
            raise not_loaded(
                f"Error loading model. (Exit code: {code}). Unknown error. Try a different model and/or config.\n"
                + self._said.decode("utf-8", "replace").strip()
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _refused(answer, parameters)
        return answer

    def _connect(self, httpx: Any, answer: Mapping[str, Any]) -> None:
        self._transport_error = httpx.TransportError
        self._client = httpx.AsyncClient(
            base_url=answer["url"],
            headers={"Authorization": f"Bearer {answer['key']}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(STALL_SECONDS),
            # An idle kept connection would hold one of the engine's few threads; a proxy must never be asked.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("Model is unloaded.", fatal=True)

    async def _lost(self, error: Exception) -> EngineError:
        """Return why a connection broke: the worker died; or it is stuck, and is killed.

        Raises:
            EngineError: If it was closed meanwhile.
        """
        self._check_open()
        if await self._ended():
            return crashed(self._process.returncode)
        await self._kill()
        return crashed(self._process.returncode, f"It did not answer in time: {type(error).__name__} {error}".rstrip())

    async def _ended(self) -> bool:
        """Return whether the process ends within the grace."""
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        """Take what the engine prints, in pieces of any length: a full pipe would stop it."""
        assert self._process.stderr is not None, "the process was started with pipes"
        while data := await self._process.stderr.read(_LAST_WORDS):
            self._said = (self._said + data)[-_LAST_WORDS:]
            logger.debug("worker %s: %s", self._process.pid, data)

    async def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._listener


def _http_library() -> Any:
    """Import the HTTP client; it takes a while, and only who loads a model needs it."""
    try:
        return importlib.import_module("httpx")
    except ImportError:
        raise EngineError(f"the llama.cpp engine needs more packages: {INSTALL_HINT}") from None


class Lines:
    """Cuts a stream of bytes into lines, at line feeds only: JSON may hold every other separator of Unicode."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON; halves of characters that stand alone become the replacement character."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return without_surrogates(text).encode("utf-8")


def decode(text: str) -> Any:
    """Return the JSON value of an answer; its text if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_line(line: str) -> dict[str, Any] | None:
    """Return the chunk of one line of an event stream, if it holds one.

    Raises:
        EngineError: If the line says that the engine failed.
    """
    if line.startswith(_ERROR):
        raise from_engine({"error": decode(line.removeprefix(_ERROR))})
    if not line.startswith(_DATA):
        return None
    chunk = decode(line.removeprefix(_DATA))
    if not is_object(chunk):
        return None  # the mark of the end
    if "error" in chunk:
        raise from_engine(chunk)
    return chunk


def _refused(answer: Mapping[str, Any], parameters: worker_module.WorkerParameters) -> EngineError:
    if answer.get("kind") == "engine_missing":
        return EngineError(f"the llama.cpp engine needs more packages: {INSTALL_HINT}", cause=str(answer["error"]))
    # The engine does not say which of them it is.
    doubts = [
        *(["the template in llm.load.promptTemplate is valid Jinja"] if parameters.chat_template else []),
        "the file is a complete GGUF model that this version of llama.cpp knows",
        *([f"{parameters.memory_bytes} bytes are enough memory for it"] if parameters.memory_bytes else []),
    ]
    return not_loaded(str(answer["error"]), f"Check that {', and that '.join(doubts)}.")
