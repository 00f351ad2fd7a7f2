"""Images that the client downloads: the guard, the limits and the errors, in both frameworks, sync and async."""

import asyncio
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, DocumentBlock, ImageBlock, TextBlock

from lmstudio_integrations import errors
from lmstudio_integrations._support.installation import package_command
from lmstudio_integrations.client.files import fetch, uploads
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import METHODS
from tests.langchain.conftest import CHAT, Server
from tests.support.certificates import LOCALHOST
from tests.support.requested import digest
from tests.support.served import served
from tests.support.virtual_time import in_virtual_time, serving
from tests.support.web import PIXEL, WAIT, Request, Web, web_server

BLOCKED = "is not at a public address"


def shown(make: Any, url: str, text: str = "what is it?") -> list[Any]:
    """Return a message with an image."""
    if make is ChatLMStudio:
        return [HumanMessage([text, {"type": "image_url", "image_url": {"url": url}}])]
    return [ChatMessage(blocks=[TextBlock(text=text), ImageBlock(url=url)])]


server = served(scope="function", make=Server)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


class Show:
    """Sends the image at a URL to a new model; returns the digest of what reached the server."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.framework, self.method = METHODS[name]

    def make(self, **settings: Any) -> Any:
        return self.framework(**{"model": CHAT, "host": self.server.address, "allow_image_download": True, **settings})

    def __call__(self, url: str, **settings: Any) -> list[str]:
        with self.make(**settings) as llm:
            self.method(llm, shown(self.framework, url))
        return self.server.last_request.images

    def error(self, url: str, kind: type[Exception] = errors.LMStudioImageDownloadError, **settings: Any) -> str:
        """Return the text of the error, which is also the framework's own."""
        with pytest.raises(kind) as caught:
            self(url, **settings)
        if self.framework is ChatLMStudio:
            assert isinstance(caught.value, ModelError)
        return str(caught.value)

    def trusted(self, url: str, **settings: Any) -> list[str]:
        return self(url, allow_image_download="private", **settings)

    def trusted_error(self, url: str, **settings: Any) -> str:
        return self.error(url, allow_image_download="private", **settings)


@pytest.fixture
def show(server: Server) -> Show:
    """One of the ways: what the download itself does is the same for all."""
    return Show(server, "ainvoke")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names that resolve as a test specifies, each once per request; all others resolve as usual."""
    found: dict[str, list[str]] = {}
    resolve = fetch.resolve

    async def look_up(host: str, port: int) -> list[str]:
        return found.pop(host) if host in found else await resolve(host, port)

    monkeypatch.setattr(fetch, "resolve", look_up)
    return found


# Where an image may come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "chat", "achat"])
def test_an_image_on_the_web_needs_a_permission_and_one_at_a_private_address_another(
    server: Server, web: Web, name: str
) -> None:
    each_show = Show(server, name)
    assert "allow_image_download=True" in each_show.error(
        web.url(), errors.LMStudioValueError, allow_image_download=False
    )
    message = each_show.error(web.url())
    assert BLOCKED in message
    assert "allow_image_download='private'" in message
    assert not web.requests
    assert each_show.trusted(web.url()) == [digest(PIXEL)]


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        *((host, None) for host in ("localhost", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]")),
        *(("images.test", found) for found in (["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["64:ff9b::7f00:1"])),
    ],
)
def test_this_machine_and_private_addresses_are_rejected_under_all_their_names(
    show: Show, web: Web, names: dict[str, list[str]], host: str, addresses: list[str] | None
) -> None:
    if addresses is not None:
        names[host] = addresses
    assert BLOCKED in show.error(web.url(host=host))
    assert not web.requests


def test_the_connection_goes_to_the_address_that_was_checked(
    show: Show, web: Web, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def is_public(address: str) -> bool:
        checked.append(address)
        return True

    monkeypatch.setattr(fetch, "is_public_address", is_public)
    names["images.test"] = ["127.0.0.1"]  # a second lookup would fail
    assert show(web.url(host="images.test")) == [digest(PIXEL)]
    assert checked == ["127.0.0.1"]
    assert [request.headers["Host"] for request in web.requests] == [f"images.test:{web.port}"]


def test_every_address_of_the_host_is_tried(show: Show, web: Web, names: dict[str, list[str]]) -> None:
    names["images.test"] = ["::1", "127.0.0.1"]
    assert show.trusted(web.url(host="images.test")) == [digest(PIXEL)]
    names["images.test"] = ["::1"]
    assert "the connection failed" in show.trusted_error(web.url(host="images.test"))


def test_a_name_that_does_not_resolve_is_an_error(show: Show) -> None:
    assert f"'{'a' * 64}' cannot be resolved" in show.error(f"http://{'a' * 64}/")  # too long for any resolver


# Redirects ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the web server pass for one on the internet; other addresses are what they are."""
    public = fetch.is_public_address
    monkeypatch.setattr(fetch, "is_public_address", lambda address: address == "127.0.0.1" or public(address))


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize(
    ("location", "shown", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data?x=1", "http://169.254.169.254/latest/meta-data", BLOCKED),
        ("http://images.test/a.png", "http://images.test/a.png", BLOCKED),
        ("file:///etc/passwd", "file:…", "only http and https"),
        ("http://me:hunter2@example.com/a.png", "http://example.com/a.png", "user name or password"),
    ],
)
def test_the_target_of_a_redirect_is_checked_too(
    show: Show, web: Web, names: dict[str, list[str]], location: str, shown: str, reason: str
) -> None:
    names["images.test"] = ["10.0.0.1"]
    web.redirect("/moved", location)
    message = show.error(web.url("/moved"))
    assert message.startswith(f"cannot download the image {web.url('/moved')}: it redirects to {shown}: ")
    assert reason in message
    assert "hunter2" not in message


def test_a_redirect_to_no_url_is_an_error(show: Show, web: Web) -> None:
    web.redirect("/moved", "http://me:hunter2@example.com:x/")
    message = show.trusted_error(web.url("/moved"))
    assert "redirects to a URL that is not valid" in message
    assert "hunter2" not in message


def test_five_redirects_are_followed_and_no_more(show: Show, web: Web) -> None:
    for number in range(6):
        web.redirect(f"/{number}", f"{number + 1}" if number < 5 else "/a.png", status=301 + number % 3)
    assert show.trusted(web.url("/1")) == [digest(PIXEL)]
    assert "more than 5 redirects" in show.trusted_error(web.url("/0"))


# What is sent ---------------------------------------------------------------------------------------------------------


def test_no_cookies_credentials_or_other_identifying_headers_are_sent(
    show: Show, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    web.pages["/moved"] = lambda request: request.head(302, Location="/a.png", Set_Cookie="who=me; Path=/")
    assert show.trusted(web.url("/moved")) == [digest(PIXEL)]
    for request in web.requests:
        names = {name.lower() for name in request.headers}
        assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert request.headers["Accept-Encoding"] == "identity"


def test_proxies_of_the_environment_are_ignored(show: Show, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert show.trusted(web.url()) == [digest(PIXEL)]


def test_a_password_in_a_url_is_neither_sent_nor_shown(show: Show, web: Web) -> None:
    url = web.url("/a.png?key=hunter2#hunter2", host="me:hunter2@127.0.0.1")
    message = show.trusted_error(url)
    assert "user name or password" in message
    assert "hunter2" not in message
    assert "hunter2" not in show.error(url, errors.LMStudioValueError, allow_image_download=False)
    assert not web.requests


def test_a_password_in_a_url_of_another_kind_is_not_shown(server: Server) -> None:
    url = "ftp://me:hunter2@example.com/a.txt?key=hunter2"
    document: Any = {"type": "text-plain", "url": url}
    with pytest.raises(errors.LMStudioValueError) as in_langchain:
        server.chat().invoke([HumanMessage([document])])
    with pytest.raises(errors.LMStudioValueError) as in_llama_index:
        LMStudio(model=CHAT, host=server.address).chat([ChatMessage(blocks=[DocumentBlock(url=url)])])
    assert "hunter2" not in f"{in_langchain.value}{in_llama_index.value}"


def test_the_query_of_a_url_is_sent_and_not_shown(show: Show, web: Web) -> None:
    web.pages["/b.png"] = lambda request: request.head(404)
    message = show.trusted_error(web.url("/b.png?key=hunter2"))
    assert (
        message
        == f"cannot download the image {web.url('/b.png')}: the server responded with 404 Not Found; check the URL"
    )
    assert [request.path for request in web.requests] == ["/b.png?key=hunter2"]


INVALID, UNRESOLVED = "the URL is not valid", "cannot be resolved"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        *(
            (url, INVALID)
            for url in ("http://127.0.0.1:65536/", "http://a\nb/", "http://me:hunter2/@b/", "HTTP://ä..b/a")
        ),
        ("http://[bad/a.png", UNRESOLVED),
    ],
)
def test_a_url_that_is_not_valid_is_an_error(show: Show, url: str, reason: str) -> None:
    message = show.error(url)
    assert message.startswith("cannot download the image")
    assert reason in message
    assert "hunter2" not in message


# What comes -----------------------------------------------------------------------------------------------------------


def page(content: bytes, **headers: str) -> Callable[[Request], Any]:
    return lambda request: request.respond(content, **headers)


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (page(b"<!doctype html><p>Log in", Content_Type="text/html; charset=utf-8"), "as 'text/html', is not a JPEG"),
        (page(b"<p>", Content_Type="image/png"), "as 'image/png', is not a JPEG"),
        (page(b"GIF89a" + bytes(20)), "what came is not a JPEG, PNG or WebP image"),
        (page(b""), "what came is empty"),
        (page(PIXEL, Content_Encoding="gzip"), "compressed it ('gzip')"),
        (page(PIXEL, Content_Length=str(20 * 2**20 + 1)), "larger than 20 MB"),
        (lambda request: request.wfile.write(b"hello\r\n\r\n"), "the connection failed"),
        (lambda request: None, "the connection failed"),
    ],
)
def test_what_is_no_image_is_rejected(show: Show, web: Web, respond: Callable[[Request], Any], reason: str) -> None:
    web.pages["/x"] = respond
    assert reason in show.trusted_error(web.url("/x"))


def test_bytes_count_more_than_the_type_that_the_server_names(show: Show, web: Web) -> None:
    web.pages["/x"] = page(PIXEL, Content_Type="application/octet-stream", Content_Encoding="identity")
    assert show.trusted(web.url("/x")) == [digest(PIXEL)]


def test_a_response_of_unknown_length_may_not_be_huge(show: Show, web: Web) -> None:
    def endless(request: Request) -> None:
        request.protocol_version = "HTTP/1.1"
        request.head(Transfer_Encoding="chunked")
        content = PIXEL
        try:
            while not web.closing.is_set():
                request.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
                content = bytes(2**20)
        except OSError:
            web.client_closed.set()

    web.pages["/x"] = endless
    assert "larger than 20 MB" in show.trusted_error(web.url("/x"))
    assert web.client_closed.wait(WAIT)


# Time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/drip", "/silent"])
def test_the_timeout_of_a_call_holds_for_the_download(show: Show, web: Web, path: str) -> None:
    with pytest.raises(errors.LMStudioTimeoutError, match=r"Image download: .*timeout expired") as caught:
        show.trusted(web.url(path), timeouts={"total_timeout": 0.3})
    assert caught.value.timeout_name == "total_timeout"
    assert caught.value.elapsed is not None
    assert caught.value.elapsed >= 0.3
    # On a busy machine, the time may be up before the request is sent.
    assert web.client_closed.wait(WAIT) or not web.reached.is_set()


def test_a_download_without_httpx_names_what_to_install(show: Show, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "lmstudio_integrations.client.files.fetch")
    assert f"this needs httpx; run: {package_command('httpx')}" in show.trusted_error(web.url("/pixel.png"))


def test_a_download_has_a_limit_even_if_the_call_has_none(
    show: Show, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "DOWNLOAD_TIMEOUT", 0.2)
    assert "did not arrive within 0.2 s; set total_timeout" in show.trusted_error(web.url("/drip"))
    assert web.client_closed.wait(WAIT)


@in_virtual_time
async def test_the_timeout_of_a_call_covers_the_download_and_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    async def slow_fetch(_url: str, *, limit: float, **_: Any) -> bytes:
        limits.append(limit)
        await asyncio.sleep(50)
        return PIXEL

    monkeypatch.setattr(fetch, "fetch", slow_fetch)
    began = time.monotonic()
    async with serving(Server()) as host:
        timeouts = {"total_timeout": 60}
        settings: dict[str, Any] = {"model": CHAT, "host": host, "timeouts": timeouts, "allow_image_download": True}
        async with ChatLMStudio(**settings) as llm:
            with pytest.raises(errors.LMStudioTimeoutError) as caught:
                await llm.ainvoke(shown(ChatLMStudio, "http://example.com/a.png", "stall"))
    assert caught.value.timeout_name == "total_timeout"
    assert time.monotonic() - began == pytest.approx(60, abs=1)
    assert limits == [pytest.approx(60, abs=1)]


async def test_a_cancelled_call_returns_at_once_and_ends_the_download(show: Show, web: Web) -> None:
    with show.make(allow_image_download="private") as llm:
        call = asyncio.create_task(llm.ainvoke(shown(ChatLMStudio, web.url("/silent"))))
        assert await asyncio.to_thread(web.reached.wait, WAIT)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await asyncio.to_thread(web.client_closed.wait, WAIT)


def test_closing_the_model_ends_its_downloads(show: Show, web: Web) -> None:
    with show.make(allow_image_download="private") as llm, ThreadPoolExecutor() as threads:
        call = threads.submit(llm.invoke, shown(ChatLMStudio, web.url("/silent")))
        assert web.reached.wait(WAIT)
        llm.close()
        with pytest.raises(errors.LMStudioConnectionLostError):
            call.result(WAIT)
        assert web.client_closed.wait(WAIT)


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls_names() -> list[str | None]:
    """The server names that clients requested."""
    return []


@pytest.fixture
def tls_web(tls_names: list[str | None]) -> Iterator[Web]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(LOCALHOST)
    context.sni_callback = lambda _socket, name, _context: tls_names.append(name)
    with web_server(context) as running:
        yield running


def test_tls_is_spoken_with_the_name_of_the_host(
    show: Show, tls_web: Web, tls_names: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    assert show.trusted(tls_web.url(host="localhost", scheme="https")) == [digest(PIXEL)]
    assert tls_names == ["localhost"]


def test_a_certificate_for_another_name_is_an_error(
    show: Show, tls_web: Web, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    names["images.test"] = ["127.0.0.1"]
    assert "CERTIFICATE_VERIFY_FAILED" in show.trusted_error(tls_web.url(host="images.test", scheme="https"))
