"""A worker's HTTP server with made-up responses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple


class Request(NamedTuple):
    """A request: its first line, its headers in lower case, its body, and what the client still sends."""

    line: str
    headers: dict[str, str]
    body: bytes
    rest: asyncio.StreamReader


Respond = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes, status: int = 200) -> bytes:
    """Return a response whose length is known."""
    return f"HTTP/1.1 {status} Any\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*chunks: bytes, ends: bool = True) -> bytes:
    """Return a response in chunks, with or without its end."""
    parts = [f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + (b"0\r\n\r\n" if ends else b"")


@asynccontextmanager
async def responding(respond: Respond) -> AsyncIterator[str]:
    """Serve each request and return the address."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await respond(await _read(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request:
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines if each)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", 0))), reader)
