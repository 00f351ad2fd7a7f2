"""An HTTP server for Ollama's protocol and OpenAI's, as LM Studio implements it; its models are the emulator's."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from lmstudio_integrations.emulator.engines.base import (
    EngineEvent,
    GenerateRequest,
    LoadRequest,
    Progress,
)
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine, ScriptedModel
from lmstudio_integrations.types.config import LlmPredictionConfig
from tests.llama_index.peers import ollama_format, openai_format
from tests.llama_index.peers.wire_formats import BadRequestError, ParsedRequest, ResponseWriter
from tests.llama_index.scripted_server import CHAT, EMBEDDING, MODELS
from tests.requested import Requested, digest

_HEAD_END = b"\r\n\r\n"
_ROUTES = {**openai_format.ROUTES, **ollama_format.ROUTES}


class _EndOfStreamError(ConnectionError):
    """A streaming response is complete or was cancelled; the connection is closed."""


class _RecordingEngine(ScriptedEngine):
    """A scripted engine that records its requests; there is no emulator to do so."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[GenerateRequest] = []
        self.embedded: list[str] = []

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        model = await super().load(request, on_progress)
        model.__class__ = _RecordingModel
        assert isinstance(model, _RecordingModel)
        model.engine = self
        return model


class _RecordingModel(ScriptedModel):
    engine: _RecordingEngine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        self.engine.requests.append(request)
        async for event in super().generate(request):
            yield event

    async def embed(self, text: str) -> list[float]:
        self.engine.embedded.append(text)
        return await super().embed(text)


class HttpServer:
    """Serves on a thread of its own inside a `with` block.

    Attributes:
        cancelled: The number of streaming responses that the client cancelled.
    """

    def __init__(self) -> None:
        self._engine = _RecordingEngine()
        self.cancelled = 0
        self.address = ""
        self._models: dict[str, ScriptedModel] = {}
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def last_request(self) -> Requested:
        """The last request."""
        request = self._engine.requests[-1]
        return Requested(
            config=request.config,
            history=request.history,
            prompt=request.prompt,
            tools=request.tools,
            tool_choice=request.tool_choice,
            images=[digest(image.data) for image in request.images.values()],
        )

    @property
    def prediction_count(self) -> int:
        """The number of predictions requested."""
        return len(self._engine.requests)

    @property
    def embedded(self) -> list[str]:
        """The texts to embed, in order of arrival."""
        return self._engine.embedded

    def wait_until_cancelled(self, timeout: float = 2.0) -> bool:
        """Wait up to `timeout` seconds; return whether a streaming response was cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: self.cancelled > 0, timeout)

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for entry in MODELS:
            request = LoadRequest(entry.key, entry.kind, engine_settings=entry.engine_settings())
            self._models[entry.key] = await self._engine.load(request, lambda _: None)
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        ready.set_result(None)
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _head(reader):
                path, size = head
                body = json.loads(await reader.readexactly(size) or b"{}")
                await self._respond(path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client disconnected, or the server stops
        finally:
            writer.close()

    async def _respond(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        parse = _ROUTES.get(path)
        if parse is None:
            _send(writer, 404, {"error": f"no such path: {path}"})
            return
        try:
            request = parse(body)
            if isinstance(request, dict):
                _send(writer, 200, request)
            elif request.texts is not None:
                model = self._models[EMBEDDING]
                _send(writer, 200, request.response.vectors([await model.embed(text) for text in request.texts]))
            elif request.stream:
                await self._stream(request, reader, writer)
            else:
                _send(writer, 200, await _complete(self._events(request), request.response))
        except BadRequestError as error:
            _send(writer, 400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except EngineError as error:
            _send(writer, 500, {"error": {"message": str(error), "type": "server_error"}})

    def _events(self, request: ParsedRequest) -> AsyncIterator[EngineEvent]:
        model = self._models.get(request.model, self._models[CHAT])
        return model.generate(
            GenerateRequest(**{**engine_fields(request), "config": LlmPredictionConfig(**request.config)})
        )

    async def _stream(self, request: ParsedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        events = self._events(request)
        first = await anext(events)
        _head_of_stream(writer, request.response.content_type)
        disconnected = asyncio.ensure_future(reader.read(1))
        try:
            complete = await _send_stream(first, events, request.response, writer, disconnected)
        except ConnectionError:
            complete = False
        finally:
            disconnected.cancel()
        if not complete:
            with self._changed:
                self.cancelled += 1
                self._changed.notify_all()
        raise _EndOfStreamError


async def _send_stream(
    first: EngineEvent,
    events: AsyncIterator[EngineEvent],
    response: ResponseWriter,
    writer: asyncio.StreamWriter,
    disconnected: "asyncio.Future[bytes]",
) -> bool:
    """Send a response as it is generated; return whether it was sent completely."""
    for chunk in response.encode(first):
        _write_chunk(writer, chunk)
    async for event in events:
        if disconnected.done():
            return False
        for chunk in response.encode(event):
            _write_chunk(writer, chunk)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def engine_fields(request: ParsedRequest) -> dict[str, Any]:
    """Return the fields of a request that the engine gets unchanged."""
    names = ("history", "prompt", "tools", "tool_choice", "images")
    return {name: getattr(request, name) for name in names}


async def _complete(events: AsyncIterator[EngineEvent], response: ResponseWriter) -> dict[str, Any]:
    async for event in events:
        response.add(event)
    return response.complete()


async def _head(reader: asyncio.StreamReader) -> tuple[str, int] | None:
    """Return the path of the next request and the size of its body; `None` at the end."""
    try:
        head = await reader.readuntil(_HEAD_END)
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return first.split(" ")[1], int(headers.get("content-length", 0))


def _send(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    lines = (f"HTTP/1.1 {status} -", "content-type: application/json", f"content-length: {len(content)}")
    writer.write("\r\n".join((*lines, "", "")).encode() + content)


def _head_of_stream(writer: asyncio.StreamWriter, content_type: str) -> None:
    lines = ("HTTP/1.1 200 OK", f"content-type: {content_type}", "transfer-encoding: chunked", "connection: close")
    writer.write("\r\n".join((*lines, "", "")).encode())


def _write_chunk(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    if writer.transport.is_closing():
        raise ConnectionResetError
    writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
