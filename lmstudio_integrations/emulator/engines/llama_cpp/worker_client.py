"""A worker process and its HTTP client: memory limit, start, call, stream, detect a crash, stop.

Knows nothing of models or predictions: JSON bodies in, JSON responses and chunks out.
"""

import asyncio
import contextlib
import importlib
import io
import json
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from lmstudio_integrations._support.environment import memory_of_machine
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_count, is_object
from lmstudio_integrations.emulator.engines.base import EngineError, load_failed, model_crashed
from lmstudio_integrations.emulator.engines.llama_cpp import worker_main
from lmstudio_integrations.emulator.engines.llama_cpp.responses import error_from_response
from lmstudio_integrations.emulator.engines.llama_cpp.weights import install_hint
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.protocol.envelope import without_surrogates

logger: logging.Logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0
"""The idle timeout of a stream: the engine sends something after each prompt batch."""

CALL_SECONDS = 120.0
"""The total timeout of a call without a stream: tokens, templates, vectors.

A worker that exceeds it is killed with all its streams: the engine cannot abort such a call, and a template without end
would occupy one of its few threads forever.
"""

LARGE_BODY_BYTES = 1_000_000
"""Bodies above this size are sent one at a time: each may take seconds."""

LONGEST_LINE_BYTES = 1 << 27
"""The most that a line of a stream may have: its last one repeats the prompt, with all its images."""

KEEPALIVE_SECONDS = 2.0
"""How long an idle connection is kept. The engine closes it after 5 seconds."""

GRACE_SECONDS = 2.0
"""How long a worker may take to exit."""

KILL_SECONDS = 10.0
"""How long a killed worker may take to exit. After that, only a child of it can keep its pipes open."""

_DATA, _ERROR = "data: ", "error: "
"""Fields of an event stream. The second is not standard: llama.cpp reports errors with it."""

_LAST = {"Connection": "close"}
"""Headers of a stream: a request that reuses the connection of a stream that has just ended may be lost."""

_OUTPUT_KEPT = 4096
"""Bytes of the engine's last output that are kept, for the error of a failed load."""


class Worker:
    """One running worker. Belongs to the event loop that started it."""

    def __init__(self, process: asyncio.subprocess.Process, http_threads: int) -> None:
        self._process = process
        self._output = b""
        self._stderr_reader = asyncio.create_task(self._drain_stderr())
        self._session: Any = None
        self._responses: set[Any] = set()
        # Each connection occupies one of the engine's threads, also while it is idle. The session's own limit would
        # raise `CancelledError` in what waits for a connection when the session is closed.
        self._connections = asyncio.Semaphore(http_threads)
        self._large_calls = asyncio.Lock()
        self._transport_errors: tuple[type[Exception], ...] = (OSError,)
        self._closed = False

    @classmethod
    async def start(cls, parameters: worker_main.WorkerParameters, *, seconds: float) -> "Worker":
        """Start a worker and wait until its model is loaded; cancelling ends it.

        Raises:
            EngineError: If the model cannot be loaded, or not in time.
        """
        # Import it before the model is loaded: an error after a load of minutes would come late.
        aiohttp = await asyncio.to_thread(_http_library)
        # As a script, which imports nothing of the package and starts faster. Because of -P, the modules beside it do
        # not shadow others, such as `gguf`.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(Path(worker_main.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process, parameters.http_threads)
        try:
            reply = await asyncio.wait_for(worker._send_parameters(parameters), seconds)
            worker._connect(aiohttp, reply)
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
        content = None if body is None else encode(body)
        large = content is not None and len(content) > LARGE_BODY_BYTES
        # The wait for other calls does not count against the timeout of this one; large calls run one at a time.
        async with self._large_calls if large else contextlib.nullcontext(), self._connections:
            self._check_open()
            try:
                async with asyncio.timeout(CALL_SECONDS), self._request(path, content) as response:
                    status, text = response.status, await _text(response)
            except self._transport_errors as error:
                raise await self._kill_and_describe(error) from error
        payload = decode(text)
        if status >= 400:
            raise error_from_response(payload)
        return payload

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed response. Closing the generator closes the connection, which cancels.

        Raises:
            EngineError: If the engine returns an error, or has crashed.
        """
        async with self._connections:
            self._check_open()
            try:
                async with self._request(path, encode(body), _LAST) as response:
                    if response.status >= 400:
                        raise error_from_response(decode(await _text(response)))
                    # Lines end at line feeds only: JSON may contain other line separators of Unicode.
                    async for line in response.content:
                        chunk = read_line(line.decode("utf-8", "replace").rstrip("\r\n"))
                        if chunk is not None:
                            yield chunk
            except self._transport_errors as error:
                raise await self._kill_and_describe(error) from error

    async def close(self) -> None:
        """Stop the worker: close its input, wait, terminate, kill."""
        self._closed = True
        try:
            for response in self._responses:
                response.close()  # wakes its reader, which closing the session does not
            await self._session.close()
            assert self._process.stdin is not None, "the process was started with pipes"
            self._process.stdin.close()
            if not await self._exits_within(GRACE_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                await self._exits_within(GRACE_SECONDS)
        finally:  # also if this is cancelled
            await self._kill()

    async def _send_parameters(self, parameters: worker_main.WorkerParameters) -> dict[str, Any]:
        assert self._process.stdin is not None, "the process was started with pipes"
        assert self._process.stdout is not None, "the process was started with pipes"
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(f"{parameters.to_json()}\n".encode())
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            await self._exits_within(GRACE_SECONDS)
            # LM Studio's own text: programs match it.
            raise load_failed(
                f"Error loading model. (Exit code: {self._process.returncode}). Unknown error. Try a different model "
                f"and/or config.\n{self._output.decode('utf-8', 'replace').strip()}"
            )
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise _load_error(reply, parameters)
        return reply

    def _connect(self, aiohttp: Any, reply: Mapping[str, Any]) -> None:
        self._transport_errors = (aiohttp.ClientError, OSError)  # a timeout is an OSError
        self._session = aiohttp.ClientSession(
            reply["url"],
            headers={
                "Authorization": f"Bearer {reply['key']}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",  # nothing decompresses
            },
            # Idle connections expire before the engine closes them: a request on a connection that it is closing would
            # be lost. `limit=0` is no limit; see `_connections`.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=STALL_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=LONGEST_LINE_BYTES,
            auto_decompress=False,
            trust_env=False,  # a proxy must never be used
        )

    @contextlib.asynccontextmanager
    async def _request(
        self, path: str, content: bytes | None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Any, None]:
        """Send a request and return its response. A response that is not read to its end closes its connection."""
        # aiohttp warns of large bodies that are bytes.
        data = None if content is None else io.BytesIO(content)
        response = await self._session.request("GET" if data is None else "POST", path, data=data, headers=headers)
        self._responses.add(response)
        try:
            yield response
        finally:
            self._responses.discard(response)
            response.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("Model is unloaded.", fatal=True)

    async def _kill_and_describe(self, error: Exception) -> EngineError:
        """Return the error for a lost connection: the worker crashed, or hangs and is killed.

        Raises:
            EngineError: If the worker was closed meanwhile.
        """
        self._check_open()
        if await self._exits_within(GRACE_SECONDS):
            return model_crashed(self._process.returncode)
        await self._kill()
        return model_crashed(
            self._process.returncode, f"It did not respond in time: {type(error).__name__} {error}".rstrip()
        )

    async def _exits_within(self, seconds: float) -> bool:
        """Return whether the process exits in time. Waits for the end of its output, too."""
        # A child of the worker may outlive it and keep its output open; `Process.wait` then blocks, too.
        # `asyncio.wait`, because a timeout here must not cancel the reader, which others await.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
                await asyncio.wait([self._stderr_reader])
        return self._process.returncode is not None

    async def _drain_stderr(self) -> None:
        """Read what the engine prints: a full pipe would block it."""
        assert self._process.stderr is not None, "the process was started with pipes"
        while data := await self._process.stderr.read(_OUTPUT_KEPT):
            self._output = (self._output + data)[-_OUTPUT_KEPT:]
            logger.debug("worker %s: %s", self._process.pid, data)

    async def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._exits_within(KILL_SECONDS)


def _http_library() -> Any:
    """Import the HTTP client on first use, because that takes a while."""
    try:
        return importlib.import_module("aiohttp")
    except ImportError:
        raise EngineError(f"the llama.cpp engine needs more packages: {install_hint()}") from None


async def _text(response: Any) -> str:
    content: bytes = await response.read()
    return content.decode("utf-8", "replace")


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
        EngineError: If the line reports an error of the engine, or cannot be read.
    """
    if line.startswith(_ERROR):
        raise error_from_response({"error": decode(line.removeprefix(_ERROR))})
    if not line.startswith(_DATA):
        return None
    data = line.removeprefix(_DATA)
    if data == "[DONE]":
        return None  # the last line of a stream
    chunk = decode(data)
    if not is_object(chunk):  # dropping it would leave a gap in the response
        raise EngineError("The engine sent an unreadable chunk", cause=data[:_OUTPUT_KEPT])
    if "error" in chunk:
        raise error_from_response(chunk)
    return chunk


def _load_error(reply: Mapping[str, Any], parameters: worker_main.WorkerParameters) -> EngineError:
    if reply.get("kind") == "engine_missing":
        return EngineError(f"the llama.cpp engine needs more packages: {install_hint()}", cause=str(reply["error"]))
    # The engine does not say which of these failed.
    possible_causes = [
        *(["the template in llm.load.promptTemplate is valid Jinja"] if parameters.chat_template else []),
        "the file is a complete GGUF model that this version of llama.cpp knows",
        *([f"{parameters.memory_bytes} bytes are enough memory for it"] if parameters.memory_bytes else []),
    ]
    return load_failed(str(reply["error"]), f"Check that {', and that '.join(possible_causes)}.")


SHARE = 4
"""By default, one part in so many of the machine's memory stays free."""


def memory_limit(requested: int | None) -> int:
    """Return the limit in bytes, 0 for none: the requested one, else three quarters of the memory.

    Raises:
        LMStudioValueError: If the requested limit is invalid, or this system does not support one.
    """
    if requested is None:
        return 0 if sys.platform != "linux" else memory_of_machine() * (SHARE - 1) // SHARE
    if not (is_count(requested) and requested):
        raise LMStudioValueError(f"worker_memory must be a number of bytes above 0; got {shown(requested)}")
    if sys.platform != "linux":
        raise LMStudioValueError("worker_memory is supported on Linux only; omit it on this system")
    return requested
