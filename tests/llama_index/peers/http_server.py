"""A scripted HTTP server: OpenAI's protocol as LM Studio speaks it, and Ollama's. The models are the emulator's."""

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
from tests.llama_index.peers import ollama_form, openai_form
from tests.llama_index.peers.forms import Answer, Asked, BadRequestError
from tests.llama_index.server import CHAT, EMBEDDING, MODELS
from tests.requested import Requested, digest

_HEAD_END = b"\r\n\r\n"
_FORMS = {**openai_form.ROUTES, **ollama_form.ROUTES}


class _EndOfStreamError(ConnectionError):
    """A streamed answer is complete, or was left; the connection is not used again."""


class _RememberingEngine(ScriptedEngine):
    """A scripted engine that keeps everything that it was asked, where no emulator does."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[GenerateRequest] = []
        self.embedded: list[str] = []

    async def load(self, request: LoadRequest, on_progress: Progress) -> ScriptedModel:
        model = await super().load(request, on_progress)
        model.__class__ = _RememberingModel
        assert isinstance(model, _RememberingModel)
        model.engine = self
        return model


class _RememberingModel(ScriptedModel):
    engine: _RememberingEngine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        self.engine.requests.append(request)
        async for event in super().generate(request):
            yield event

    async def embed(self, text: str) -> list[float]:
        self.engine.embedded.append(text)
        return await super().embed(text)


class HttpServer:
    """Serves on a thread of its own, inside a `with` block.

    Attributes:
        left: How many answers were left by their reader before the end.
    """

    def __init__(self) -> None:
        self._engine = _RememberingEngine()
        self.left = 0
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
    def asked(self) -> Requested:
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
    def asked_times(self) -> int:
        """How many predictions were requested."""
        return len(self._engine.requests)

    @property
    def embedded(self) -> list[str]:
        """The texts that were embedded."""
        return self._engine.embedded

    def wait_until_left(self, timeout: float = 2.0) -> bool:
        """Whether an answer is left by its reader within the time, in seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.left > 0, timeout)

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
                await self._answer(path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server stops
        finally:
            writer.close()

    async def _answer(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        form = _FORMS.get(path)
        if form is None:
            _send(writer, 404, {"error": f"no such path: {path}"})
            return
        try:
            asked = form(body)
            if isinstance(asked, dict):
                _send(writer, 200, asked)
            elif asked.texts is not None:
                model = self._models[EMBEDDING]
                _send(writer, 200, asked.answer.vectors([await model.embed(text) for text in asked.texts]))
            elif asked.stream:
                await self._stream(asked, reader, writer)
            else:
                _send(writer, 200, await _whole(self._events(asked), asked.answer))
        except BadRequestError as error:
            _send(writer, 400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except EngineError as error:
            _send(writer, 500, {"error": {"message": str(error), "type": "server_error"}})

    def _events(self, asked: Asked) -> AsyncIterator[EngineEvent]:
        model = self._models.get(asked.model, self._models[CHAT])
        return model.generate(GenerateRequest(**{**vars_of(asked), "config": LlmPredictionConfig(**asked.config)}))

    async def _stream(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        events = self._events(asked)
        first = await anext(events)
        _head_of_stream(writer, asked.answer.content_type)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            complete = await _play(first, events, asked.answer, writer, gone)
        except ConnectionError:
            complete = False
        finally:
            gone.cancel()
        if not complete:
            with self._changed:
                self.left += 1
                self._changed.notify_all()
        raise _EndOfStreamError


async def _play(
    first: EngineEvent,
    events: AsyncIterator[EngineEvent],
    answer: Answer,
    writer: asyncio.StreamWriter,
    gone: "asyncio.Future[bytes]",
) -> bool:
    """Send an answer as it comes; return whether the reader stayed to the end."""
    for piece in answer.pieces(first):
        _chunk(writer, piece)
    async for event in events:
        if gone.done():
            return False
        for piece in answer.pieces(event):
            _chunk(writer, piece)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def vars_of(asked: Asked) -> dict[str, Any]:
    """Return what of a request concerns the engine."""
    wanted = ("history", "prompt", "tools", "tool_choice", "images")
    return {name: getattr(asked, name) for name in wanted}


async def _whole(events: AsyncIterator[EngineEvent], answer: Answer) -> dict[str, Any]:
    async for event in events:
        answer.take(event)
    return answer.whole()


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


def _chunk(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if writer.transport.is_closing():
        raise ConnectionResetError
    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
