"""An HTTP server for Ollama's protocol and OpenAI's, as LM Studio implements it; its models are the emulator's."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from lmstudio_integrations.emulator.engines.base import EngineEvent, LoadRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.scripted import ScriptedModel
from lmstudio_integrations.types.config import LlmPredictionConfig
from tests.contract.comparison import ollama_format, openai_format
from tests.contract.comparison.wire_formats import BadRequestError, ParsedRequest, ResponseWriter
from tests.contract.engine import HttpRequest, RecordingEngine
from tests.contract.models import CHAT, EMBEDDING, MODELS

_HEAD_END = b"\r\n\r\n"
_ROUTES = {**openai_format.ROUTES, **ollama_format.ROUTES}


class HttpServer:
    """Serves on a thread of its own inside a `with` block.

    Attributes:
        engine: The engine, which records the requests.
        address: Host and port.
    """

    def __init__(self) -> None:
        self.engine = RecordingEngine()
        self.address = ""
        self._models: dict[str, ScriptedModel] = {}

    def __enter__(self) -> Self:
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.result(600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(600)

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for entry in MODELS:
            request = LoadRequest(entry.key, entry.kind, engine_settings=entry.engine_settings())
            self._models[entry.key] = await self.engine.load(request, lambda _: None)
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
                await _while_connected(reader, self._respond(path, body, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client disconnected, or the server stops
        finally:
            writer.close()

    async def _respond(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
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
                await self._stream(request, writer)
            else:
                _send(writer, 200, await _complete(self._events(request), request.response))
        except BadRequestError as error:
            _send(writer, 400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except EngineError as error:
            _send(writer, 500, {"error": {"message": str(error), "type": "server_error"}})

    def _events(self, request: ParsedRequest) -> AsyncGenerator[EngineEvent]:
        model = self._models.get(request.response.model, self._models[CHAT])
        events = model.generate(
            HttpRequest(**{**engine_fields(request), "config": LlmPredictionConfig(**request.config)})
        )
        return cast("AsyncGenerator[EngineEvent]", events)

    async def _stream(self, request: ParsedRequest, writer: asyncio.StreamWriter) -> None:
        """Send a response as it is generated. An error before the first event is a response of its own."""
        async with aclosing(self._events(request)) as events:
            first = await anext(events)
            _head_of_stream(writer, request.response.content_type)
            _write_chunks(writer, request.response.encode(first))
            async for event in events:
                _write_chunks(writer, request.response.encode(event))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _while_connected(reader: asyncio.StreamReader, response: Coroutine[Any, Any, None]) -> None:
    """Respond to a request; cancel the response if the client disconnects."""
    responding, disconnected = asyncio.ensure_future(response), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({responding, disconnected}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        complete = responding.done()
        for task in (responding, disconnected):
            task.cancel()
        await asyncio.wait({responding, disconnected})
    if not complete:
        raise ConnectionResetError
    await responding


def engine_fields(request: ParsedRequest) -> dict[str, Any]:
    """Return the fields of a request that the engine gets unchanged."""
    names = ("history", "prompt", "tools", "tool_choice", "images", "reasoning")
    return {name: getattr(request, name) for name in names}


async def _complete(events: AsyncGenerator[EngineEvent], response: ResponseWriter) -> dict[str, Any]:
    async with aclosing(events):
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
    lines = ("HTTP/1.1 200 OK", f"content-type: {content_type}", "transfer-encoding: chunked")
    writer.write("\r\n".join((*lines, "", "")).encode())


def _write_chunks(writer: asyncio.StreamWriter, chunks: Sequence[bytes]) -> None:
    for chunk in chunks:
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
