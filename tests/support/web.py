"""A web server on the loopback interface whose pages are functions."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""An image."""

WAIT = 600
"""Seconds after which a wait has failed."""

Page = Callable[["Request"], Any]


class Request(BaseHTTPRequestHandler):
    """A request, with methods that respond to it."""

    server: "Web"
    body: bytes = b""

    def do_GET(self) -> None:
        self.server.requests.append(self)
        self.server.pages[self.path.partition("?")[0]](self)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def head(self, status: int = 200, **headers: str) -> None:
        """Begin a response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def respond(self, content: bytes, **headers: str) -> None:
        """Send a complete response."""
        self.head(200, **headers)
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Web(ThreadingHTTPServer):
    """The server. Pages may be added while it runs.

    Attributes:
        pages: What responds, by path.
        requests: All requests so far.
        reached: Set when a page that never ends is requested.
        client_closed: Set when the client of such a page closes the connection.
        closing: Set when the server is about to stop.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.requests: list[Request] = []
        self.reached, self.client_closed, self.closing = threading.Event(), threading.Event(), threading.Event()
        self.pages: dict[str, Page] = {
            "/a.png": lambda request: request.respond(PIXEL, Content_Type="image/png"),
            "/silent": self._silent,
            "/drip": partial(self._dripping, b"HTTP/1.0 200 OK\r\n\r\n" + PIXEL),
            "/drip-head": partial(self._dripping, b"HTTP/1.0 200 OK\r\nX-Long: "),
        }

    @property
    def port(self) -> int:
        return int(self.server_port)

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        """Add a redirect."""
        self.pages[path] = lambda request: request.head(status, Location=location)

    def _silent(self, request: Request) -> None:
        self.reached.set()
        request.connection.settimeout(WAIT)
        assert request.rfile.read(1) == b"", "the client only closes"
        self.client_closed.set()

    def _dripping(self, start: bytes, request: Request) -> None:
        self.reached.set()
        try:
            request.wfile.write(start)
            while not self.closing.wait(0.01):
                request.wfile.write(b"x")
        except OSError:
            self.client_closed.set()


@contextmanager
def web_server(tls: SSLContext | None = None) -> Iterator[Web]:
    """Run a web server."""
    with Web() as httpd:
        if tls is not None:
            httpd.socket = tls.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=partial(httpd.serve_forever, 0.01))
        thread.start()
        try:
            yield httpd
        finally:
            httpd.closing.set()
            httpd.shutdown()
            thread.join(WAIT)
