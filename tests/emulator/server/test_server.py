"""HTTP requests, namespaces and sockets."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from lmstudio_integrations import Client, LMStudioContextOverflowError, LMStudioPromptTemplateError
from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import TIMEOUT, Server, Wire, bare, wire
from tests.emulator.server.hostile import UPGRADE
from tests.emulator.stalling_model import MODEL
from tests.faults.faults import FaultProxy


def get(server: Server, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str, str]:
    """Return status, content type and body of a plain GET, or of a POST of data."""
    request = urllib.request.Request(f"http://{server.address}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_pages_are_those_of_lm_studio_and_nothing_else_is_found(server: Emulator) -> None:
    assert get(server, "/lmstudio-greeting") == (200, "application/json", '{"lmstudio":true}')
    status, _, body = get(server, "/lms-status")
    found = json.loads(body)
    assert (status, found["package"]) == (200, "lmstudio")
    assert isinstance(found["version"], str)
    assert get(server, "/llm")[0] == 426, "a namespace requires a WebSocket"
    for path, data, status in (("/nothing", None, 200), ("/v1/chat", b"{}", 200), ("/api/v1/events", None, 404)):
        text = f"Unexpected endpoint or method. ({'GET' if data is None else 'POST'} {path})"
        found = get(server, path, data=data)
        assert (found[0], json.loads(found[2])) == (status, {"error": text}), "as a real server: status 200"
    with pytest.raises(InvalidStatus) as caught, bare(server, "nothing"):
        pass
    assert caught.value.response.status_code == 404


def test_an_unknown_namespace_looks_unauthorized_where_tokens_are_required() -> None:
    with Emulator([MODEL], tokens=["sk-lm-abcdefgh:0123456789abcdefghij"]) as server:
        with pytest.raises(InvalidStatus) as caught, bare(server, "nothing"):
            pass
        assert caught.value.response.status_code == 401


def test_it_plays_another_application() -> None:
    catalog = {"model": [{"key": "m", "context_length": 8}], "application": "bionic", "version": "1.1.7"}
    with Emulator(catalog=catalog) as server:
        assert json.loads(get(server, "/lms-status")[2]) == {"package": "bionic", "version": "1.1.7"}
        with Client(server.address) as client:
            assert client.system.get_version().version == "1.1.7+emulator"


OLD = "Trying to keep the first 103 tokens when context the overflows"
NEW = "Cannot truncate prompt with n_keep (103) >= n_ctx (8)"
ENGINE = "request exceeds the available context size (8 tokens)"
REJECTED = 'Engine protocol predict request returned 500: {"error":{"code":500,"message":"Jinja Exception: '


@pytest.mark.parametrize(
    ("played", "overflow", "template"),
    [
        ({}, NEW, REJECTED),
        ({"version": "0.3.15"}, OLD, "Error rendering prompt with jinja template: "),
        ({"version": "0.4.6 (1)"}, NEW, REJECTED),
        ({"application": "daemon", "version": "0.0.21+2"}, NEW, REJECTED),
        ({"application": "bionic", "version": "1.1.7"}, ENGINE, REJECTED),
        ({"application": "bionic"}, ENGINE, REJECTED),
        ({"version": "newest"}, NEW, REJECTED),
    ],
    ids=str,
)
def test_errors_have_the_words_of_the_version_that_is_played(
    played: dict[str, str], overflow: str, template: str
) -> None:
    entry = {"key": "m", "context_length": 8, "rule": [{"when": {"last": "^roles"}, "then": [{"fault": "template"}]}]}
    with Emulator(catalog={"model": [entry], **played}) as server, Client(server.address) as client:
        model = client.llm.model("m")
        with pytest.raises(LMStudioContextOverflowError) as caught:
            model.respond("word " * 100)
        assert str(caught.value.title).startswith(overflow)
        assert caught.value.limit == 8
        with pytest.raises(LMStudioPromptTemplateError) as rejected:
            model.respond("roles")
        assert str(rejected.value.title).startswith(template)


@pytest.mark.parametrize(("version", "reason"), [("0.3.15", "eosFound"), ("0.4.22", "toolCalls")])
def test_a_turn_that_calls_tools_ends_as_in_the_version_that_is_played(version: str, reason: str) -> None:
    rule = {"when": {"tools": ["look"]}, "then": [{"tool": "look", "arguments": {}}]}
    look = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    config: Any = {"rawTools": {"type": "toolArray", "tools": [{"type": "function", "function": look}]}}
    catalog = {"model": [{"key": "m", "rule": [rule]}], "version": version}
    with Emulator(catalog=catalog) as server, Client(server.address) as client:
        result = client.llm.model("m").respond("Look!", config=config)
        assert [call.name for call in result.tool_call_requests] == ["look"]
        assert result.stats.stop_reason == server.predictions[-1].stop_reason == reason
        assert client.llm.model("m").respond("Hello").stats.stop_reason == "eosFound"


def test_browsers_are_rejected_unless_their_origin_is_allowed() -> None:
    with Emulator([MODEL], origins=["http://good.example"]) as server:
        assert get(server, "/lmstudio-greeting", Origin="http://bad.example")[0] == 403
        with pytest.raises(InvalidStatus) as caught, bare(server, origin="http://bad.example"):
            pass
        assert caught.value.response.status_code == 403
        with wire(server, origin="http://good.example") as me:
            assert me.result("listLoaded") == []


MINE = (
    "",
    "localhost:1",
    "Chat.LOCALHOST",
    "127.0.0.1",
    "192.168.0.9:80",
    "[::1]:9",
    "gpu:1",
    "me.local.",
    "a.internal",
)


def test_a_name_that_a_page_gives_this_machine_is_told_nothing() -> None:
    with Emulator([MODEL], origins=["https://good.example"], host="127.0.0.1") as server:
        for host in ("bad.example", f"bad.example:{server.port}", "bad.example.", "127.0.0.1.bad.example", "[bad"):
            for path in ("/api/v1/models", "/lms-status", "/nothing"):
                status, _, body = get(server, path, Host=host)
                assert (status, "is no known name of this machine" in body) == (403, True), (host, path)
            assert get(server, "/lmstudio-greeting", Host=host)[0] == 200, "which tells nothing"
        for host in (*MINE, "good.example", socket.gethostname()):
            assert get(server, "/lms-status", Host=host)[0] == 200, host
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as line:
            line.sendall((UPGRADE % b"llm").replace(b"Host: x", b"Host: proxy.example"))
            assert line.recv(4096).startswith(b"HTTP/1.1 101"), "a browser would have sent an origin"
    with Emulator([MODEL], tokens=["sk-lm-abcdefgh:0123456789abcdefghij"]) as server:
        assert get(server, "/lms-status", Host="proxy.example")[0] == 200, "a page has no token"


REQUESTS = {
    "with a body": (b"GET /lms-status HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 200),
    "with a body in chunks": (b"GET /lms-status HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 200),
    "two at once": (b"GET /lms-status HTTP/1.1\r\n\r\n" * 2, 200),
    "an unknown method": (b"BREW /lms-status HTTP/1.1\r\n\r\n", 200),
    "an unknown method of a resource": (b"M-SEARCH /api/v1/models HTTP/1.1\r\n\r\n", 404),
    "another method with a body": (b"PUT /api/v1/models HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 404),
    "a post": (b"POST /api/v1/models HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 404),
}


@pytest.mark.parametrize("pieces", [1, 2, 1000], ids=["at once", "cut in its first word", "in single bytes"])
@pytest.mark.parametrize(("sent", "status"), REQUESTS.values(), ids=REQUESTS)
def test_every_request_gets_one_response(server: Emulator, sent: bytes, status: int, pieces: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cuts = {1: [len(sent)], 2: [2, len(sent)]}.get(pieces, range(1, len(sent) + 1))
        start = 0
        for cut in cuts:
            opened.sendall(sent[start:cut])
            start = cut
            if pieces == 2:
                get(server, "/lmstudio-greeting")  # after this, the first piece has been read
        response = opened.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 %d " % status), response
    assert response.count(b"HTTP/1.1") == 1
    assert (b"Unexpected endpoint or method" in response) == (not sent.startswith(b"GET"))


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization"])
def test_a_header_that_says_who_asks_comes_once(server: Emulator, name: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as opened:
        opened.sendall(f"GET /api/v1/models HTTP/1.1\r\n{name}: a\r\n{name}: b\r\n\r\n".encode())
        response = opened.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 400 "), response
    assert f"several headers {name}".encode() in response


@pytest.fixture(params=["directly", "through a proxy"])
def raw_address(server: Emulator, request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    with FaultProxy(server.address) as proxy:
        host, _, port = (server if request.param == "directly" else proxy).address.rpartition(":")
        yield host, int(port)


def test_what_is_no_request_closes_the_connection(raw_address: tuple[str, int]) -> None:
    for head in ("", "GET", "\xff\xfe", "GET /llm"):
        with socket.create_connection(raw_address, timeout=TIMEOUT) as opened:
            opened.sendall(f"{head}\r\n\r\n".encode("latin-1"))
            assert opened.recv(4096) == b""


def test_binary_frames_are_read_as_text_and_replies_are_text(me: Wire) -> None:
    me.send_frame(json.dumps({"type": "keepAlive"}).encode())
    assert me.socket.recv(TIMEOUT) == '{"type":"keepAliveAck"}'
