"""A worker process and its HTTP client: start, call, stream, detect a crash, stop.

Knows nothing of models or predictions: JSON bodies in, JSON responses and chunks out.
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
from lmstudio_integrations.emulator.engines.errors import EngineError, load_failed, model_crashed
from lmstudio_integrations.emulator.engines.llama_cpp import worker as worker_script
from lmstudio_integrations.emulator.engines.llama_cpp.error_responses import error_from_response
from lmstudio_integrations.emulator.weights import INSTALL_HINT
from lmstudio_integrations.protocol.envelope import without_surrogates

logger: logging.Logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0
"""The idle timeout of a stream: the engine sends something after each part of a prompt."""

CALL_SECONDS = 120.0
"""The total timeout of a call without a stream: tokens, templates, vectors."""

LARGE_CALL = 1_000_000
"""A call of more bytes may take seconds."""

GRACE_SECONDS = 2.0
"""How long a worker may take to exit."""

_DATA, _ERROR = "data: ", "error: "
_OUTPUT_KEPT = 4096
"""Bytes of the engine's last output that are kept, for the error of a failed load."""


class Worker:
    """One running worker. Belongs to the event loop that started it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output = b""
        self._listener = asyncio.create_task(self._listen())
        self._client: Any = None
        self._large_calls = asyncio.Lock()
        self._transport_error: type[Exception] = OSError
        self._closed = False

    @classmethod
    async def start(cls, parameters: worker_script.WorkerParameters, *, seconds: float) -> "Worker":
        """Start a worker and wait until its model is loaded; cancelling ends it.

        Raises:
            EngineError: If the model cannot be loaded, or not in time.
        """
        # As a script and without the current directory: it imports nothing of the package, which starts faster.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(Path(worker_script.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        try:
            reply = await asyncio.wait_for(worker._send_parameters(parameters), seconds)
            worker._connect(await asyncio.to_thread(_http_library), reply)
        except TimeoutError:
            await worker._kill()
            raise load_failed(f"the model did not load within {seconds:g} s") from None
        except BaseException:
            await worker._kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    async def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the response to a short call; without a body it is a GET.

        Raises:
            EngineError: If the engine returns an error, or has crashed.
        """
        method, content = ("GET", None) if body is None else ("POST", encode(body))
        # Large calls run one after the other, so that none waits for the others within its timeout.
        async with self._large_calls if content and len(content) > LARGE_CALL else contextlib.nullcontext():
            self._check_open()
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    response = await self._client.request(method, path, content=content, timeout=None)
            except (self._transport_error, TimeoutError) as error:
                raise await self._lost(error) from error
        payload = decode(response.text)
        if response.status_code >= 400:
            raise error_from_response(payload)
        return payload

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed response. Closing the generator closes the connection, which cancels.

        Raises:
            EngineError: If the engine returns an error, or has crashed.
        """
        self._check_open()
        try:
            async with self._client.stream("POST", path, content=encode(body)) as response:
                if response.status_code >= 400:
                    raise error_from_response(decode((await response.aread()).decode("utf-8", "replace")))
                lines = Lines()
                async for data in response.aiter_bytes():
                    for line in lines.feed(data):
                        chunk = read_line(line)
                        if chunk is not None:
                            yield chunk
        except self._transport_error as error:
            raise await self._lost(error) from error

    async def close(self) -> None:
        """Stop the worker: close its input, wait, terminate, kill."""
        self._closed = True
        await self._client.aclose()
        assert self._process.stdin is not None, "the process was started with pipes"
        self._process.stdin.close()
        if not await self._has_exited():
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._has_exited()
        await self._kill()

    async def _send_parameters(self, parameters: worker_script.WorkerParameters) -> dict[str, Any]:
        assert self._process.stdin is not None, "the process was started with pipes"
        assert self._process.stdout is not None, "the process was started with pipes"
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(f"{parameters.to_json()}\n".encode())
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            await self._listener
            raise load_failed(
                f"Error loading model. (Exit code: {code}). Unknown error. Try a different model and/or config.\n"
                + self._output.decode("utf-8", "replace").strip()
            )
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise _load_error(reply, parameters)
        return reply

    def _connect(self, httpx: Any, reply: Mapping[str, Any]) -> None:
        self._transport_error = httpx.TransportError
        self._client = httpx.AsyncClient(
            base_url=reply["url"],
            headers={"Authorization": f"Bearer {reply['key']}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(STALL_SECONDS),
            # An idle connection would occupy one of the engine's few threads; a proxy must never be used.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("Model is unloaded.", fatal=True)

    async def _lost(self, error: Exception) -> EngineError:
        """Return the error for a lost connection: the worker crashed, or hangs and is killed.

        Raises:
            EngineError: If the worker was closed meanwhile.
        """
        self._check_open()
        if await self._has_exited():
            return model_crashed(self._process.returncode)
        await self._kill()
        return model_crashed(
            self._process.returncode, f"It did not respond in time: {type(error).__name__} {error}".rstrip()
        )

    async def _has_exited(self) -> bool:
        """Return whether the process exits in time."""
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        """Read what the engine prints: a full pipe would block it."""
        assert self._process.stderr is not None, "the process was started with pipes"
        while data := await self._process.stderr.read(_OUTPUT_KEPT):
            self._output = (self._output + data)[-_OUTPUT_KEPT:]
            logger.debug("worker %s: %s", self._process.pid, data)

    async def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._listener


def _http_library() -> Any:
    """Import the HTTP client on first use, because that takes a while."""
    try:
        return importlib.import_module("httpx")
    except ImportError:
        raise EngineError(f"the llama.cpp engine needs more packages: {INSTALL_HINT}") from None


class Lines:
    """Splits a stream of bytes into lines, at line feeds only: JSON may contain other line separators of Unicode."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are now complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON; lone surrogates become the replacement character."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return without_surrogates(text).encode("utf-8")


def decode(text: str) -> Any:
    """Return the JSON value of a response, or its text if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_line(line: str) -> dict[str, Any] | None:
    """Return the chunk in a line of an event stream, if there is one.

    Raises:
        EngineError: If the line reports an error of the engine.
    """
    if line.startswith(_ERROR):
        raise error_from_response({"error": decode(line.removeprefix(_ERROR))})
    if not line.startswith(_DATA):
        return None
    chunk = decode(line.removeprefix(_DATA))
    if not is_object(chunk):
        return None  # [DONE], which ends the stream
    if "error" in chunk:
        raise error_from_response(chunk)
    return chunk


def _load_error(reply: Mapping[str, Any], parameters: worker_script.WorkerParameters) -> EngineError:
    if reply.get("kind") == "engine_missing":
        return EngineError(f"the llama.cpp engine needs more packages: {INSTALL_HINT}", cause=str(reply["error"]))
    # The engine does not report which of them it is.
    doubts = [
        *(["the template in llm.load.promptTemplate is valid Jinja"] if parameters.chat_template else []),
        "the file is a complete GGUF model that this version of llama.cpp knows",
        *([f"{parameters.memory_bytes} bytes are enough memory for it"] if parameters.memory_bytes else []),
    ]
    return load_failed(str(reply["error"]), f"Check that {', and that '.join(doubts)}.")
