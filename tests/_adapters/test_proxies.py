"""Proxies: servers behind one, with `headers` and `ca_file` of the adapters, and those of the environment.

The native client has `ssl_context` in place of `ca_file`.
"""

import asyncio
import copy
import pickle
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM
from tests._adapters.test_numbers import assigned
from tests.faults.proxy import Injection, ProxiedConnection, Proxy, ProxyThread, forward
from tests.faults.wire_items import WireItem
from tests.langchain.conftest import CHAT, EMBEDDING, MODELS
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter, classes, covering
from tests.support.certificates import CERTIFICATES, LOCALHOST
from tests.support.leaks import error_of
from tests.support.served import served

TRUSTED, OTHER = LOCALHOST, CERTIFICATES / "elsewhere.pem"

Call = Callable[..., Any]


def _key(adapter: Adapter) -> str:
    return EMBEDDING if adapter.kind == "embedding" else CHAT


CALLS: dict[str, tuple[Any, str, Call]] = {
    name: (each.make, _key(each), partial(each.call, text="count")) for name, each in ADAPTERS.items()
}
AWAITED: dict[str, tuple[Any, str, Call]] = {
    f"{name} async": (
        each.make,
        _key(each),
        lambda model, each=each, **given: asyncio.run(each.acall(model, "count", **given)),
    )
    for name, each in LANGUAGE_MODELS.items()
}
every_call = pytest.mark.parametrize(("make", "model", "call"), CALLS.values(), ids=CALLS)
every_adapter = pytest.mark.parametrize("make", classes())

server = served(MODELS, load=[CHAT, EMBEDDING])  # else a load opens a connection on which it looks for its model


@pytest.fixture(scope="module")
def thread() -> Iterator[ProxyThread]:
    with ProxyThread() as running:
        yield running


@pytest.fixture
def heads() -> list[str]:
    """The heads of the WebSocket handshakes that went through the proxy."""
    return []


@pytest.fixture
def proxied(server: Emulator, thread: ProxyThread, heads: list[str]) -> Callable[..., Proxy]:
    """A proxy before the server, with or without TLS."""

    async def record(connection: ProxiedConnection, item: WireItem) -> None:
        heads.append(item.data.decode())
        await forward(connection, item)

    def start(*, tls: bool = False) -> Proxy:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TRUSTED)
        return Proxy(thread, server.address, [Injection("upgrade", record, 1000)], tls=context)

    return start


# Headers ------------------------------------------------------------------------------------------------------------


@every_call
def test_headers_are_sent_and_connections_shared_with_equal_ones_only(
    proxied: Callable[..., Proxy], heads: list[str], make: Any, model: str, call: Call
) -> None:
    with proxied() as proxy:
        made = make(model=model, host=proxy.address, headers={"X-Team": "red"})
        for headers in ({"X-Team": "red"}, {"X-Team": SecretStr("red")}, {"X-Team": "blue"}, {}, None):
            made.headers = headers
            call(copy.deepcopy(made))
        assert [("X-Team: red" in head, "X-Team: blue" in head) for head in heads] == [
            (True, False),
            (False, True),
            (False, False),
        ]


@every_call
def test_headers_stay_with_the_host_that_they_were_given_for(
    proxied: Callable[..., Proxy], heads: list[str], make: Any, model: str, call: Call
) -> None:
    with proxied() as proxy:
        made = make(model=model, host="127.0.0.1:9", headers={"X-Team": "red"})
        call(made.model_copy(update={"host": proxy.address}))
        assert "X-Team" not in "".join(heads)
        call(made.model_copy(update={"host": proxy.address, "headers": {"X-Team": "blue"}}))
        assert "X-Team: blue" in heads[-1]


@pytest.mark.parametrize(("make", "model", "call"), AWAITED.values(), ids=AWAITED)
def test_headers_of_a_call_replace_those_of_the_object(
    proxied: Callable[..., Proxy], heads: list[str], make: Any, model: str, call: Call
) -> None:
    with proxied() as proxy:
        llm = make(model=model, host=proxy.address, headers={"X-Team": "red"})
        call(llm, headers={"X-Other": SecretStr("blue")})
        call(llm, headers=None)
    assert "X-Other: blue" in heads[0]
    assert "X-Team" not in heads[0] + heads[1]


WRONG_HEADERS: dict[str, tuple[object, str]] = {
    "control character in a name": ({"X-\x1bKey": "hush"}, r"'X-\x1bKey'"),
    "name that is a number": ({5: "hush"}, "5 cannot be sent"),
    "control character in a value": ({"X-Key": "hush\r\nX: y"}, "'X-Key'"),
    "control character in a hidden value": ({"X-Key": SecretStr("hush\n")}, "'X-Key'"),
    "list": (["X-Key: hush"], "got a list"),
    "string": ("X-Key: hush", "got a str"),
}


def errors_of(make: Any, name: str, value: object) -> list[Exception]:
    """Return the errors of a constructor, an assignment and a copy."""
    with pytest.raises(LMStudioValueError) as created:
        make(model="m", **{name: value})
    made = make(model="m")
    changes = (partial(assigned, made, {name: value}), partial(made.model_copy, update={name: value}))
    return [created.value, *map(error_of, changes)]


@pytest.mark.parametrize(("make", "wrong"), covering(classes(), WRONG_HEADERS))
def test_wrong_headers_are_one_error_that_names_them_and_shows_no_value(make: Any, wrong: str) -> None:
    headers, text = WRONG_HEADERS[wrong]
    for error in errors_of(make, "headers", headers):
        assert text in str(error)
        assert "hush" not in f"{error!r}{error}"


@pytest.mark.parametrize(
    ("make", "duplicate"),
    covering(classes(), [copy.copy, copy.deepcopy, lambda made: made, lambda made: pickle.loads(pickle.dumps(made))]),
)
def test_headers_that_were_lost_with_pickling_are_missed(make: Any, duplicate: Callable[[Any], Any]) -> None:
    made = make(model="m", host="127.0.0.1:1", headers={"X-Team": "red"})
    *_, (_, _, call) = (row for row in CALLS.values() if row[0] is make)
    lost = duplicate(pickle.loads(pickle.dumps(made)))
    assert lost.headers is None
    with pytest.raises(lms.LMStudioAuthenticationError, match="headers were left out when this"):
        call(lost)
    for headers in ({"X-Team": "red"}, {}):
        lost.headers = headers
        with pytest.raises(lms.LMStudioUnreachableError):
            call(lost)


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudioLLM])
def test_headers_cannot_be_configurable_because_langchain_traces_the_configuration(make: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="headers cannot be configurable"):
        make(model="m").configurable_fields(headers=ConfigurableField(id="headers"))


# Certificates -------------------------------------------------------------------------------------------------------


@every_call
def test_the_authorities_of_a_file_are_trusted_and_connections_shared_with_the_same_ones_only(
    proxied: Callable[..., Proxy], heads: list[str], make: Any, model: str, call: Call
) -> None:
    with proxied(tls=True) as proxy:
        host = f"wss://{proxy.address}"
        sharing = [make(model=model, host=host, ca_file=file) for file in (TRUSTED, str(TRUSTED))]
        for each in sharing:
            call(each)
        assert len(heads) == 1
        for untrusting in (None, OTHER):
            with pytest.raises(lms.LMStudioUnreachableError, match=r"certificate is not trusted; .*ca_file"):
                call(make(model=model, host=host, ca_file=untrusting))
        made = make(model=model, host=host)
        made.ca_file = TRUSTED
        call(made)
        assert len(heads) == 1


WRONG_FILES: dict[str, tuple[str, bytes | None]] = {
    "missing": ("cannot be read: No such file", None),
    "empty": ("contains no certificate", b""),
    "key": ("contains no certificate", TRUSTED.read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]),
    "damaged": ("contains no certificate", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
}


@pytest.mark.parametrize(("make", "wrong"), covering(classes(), WRONG_FILES))
def test_a_file_that_holds_no_certificate_is_one_error_that_names_it(make: Any, wrong: str, tmp_path: Path) -> None:
    (text, content), path = WRONG_FILES[wrong], tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    for error in errors_of(make, "ca_file", path):
        assert f"ca_file {str(path)!r} {text}" in str(error)


@every_adapter
def test_a_file_for_a_server_without_tls_is_rejected_by_the_call(make: Any) -> None:
    *_, (_, model, call) = (row for row in CALLS.values() if row[0] is make)
    with pytest.raises(lms.LMStudioValueError, match=r"ca_file in the adapters\) needs a wss:// or https:// host"):
        call(make(model=model, host="localhost:1", ca_file=TRUSTED))


# Proxies of the environment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "model", "call"), [*CALLS.values(), *AWAITED.values()], ids=[*CALLS, *AWAITED])
def test_a_proxy_of_the_environment_that_does_not_respond_is_named(
    monkeypatch: pytest.MonkeyPatch, make: Any, model: str, call: Call
) -> None:
    monkeypatch.setattr(Address, "is_loopback", False)
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost")
    for name in ("http_proxy", "HTTPS_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(lms.LMStudioUnreachableError) as caught:
        call(make(model=model, host="127.0.0.1:9"))
    assert "the proxy HTTP_PROXY=127.0.0.1:1 does not lead to it: " in str(caught.value)
    assert "set NO_PROXY=localhost,127.0.0.1 if none is needed" in str(caught.value)
