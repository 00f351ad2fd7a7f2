"""Without a host, the server is the one that LM Studio's own command line would use."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support import environment
from lmstudio_integrations._support.environment import HOST_VARIABLE, SERVER_FILE_VARIABLE
from lmstudio_integrations.client.transport.connect import discovery, opening, probe, records
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.discovery import Attempt, diagnose, discover, not_found
from lmstudio_integrations.client.transport.connect.opening import Connect
from lmstudio_integrations.client.transport.connect.probe import NO_RESPONSE
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS
from tests.client.transport.connect.test_tls_and_redirects import listening
from tests.support.leaks import TOKEN
from tests.support.virtual_time import in_virtual_time

LM_STUDIO_HOME = records.home  # tests are kept from it elsewhere


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator(MODELS) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a user without LM Studio."""
    monkeypatch.setattr(records, "home", LM_STUDIO_HOME)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    for variable in (HOST_VARIABLE, SERVER_FILE_VARIABLE):
        monkeypatch.setenv(variable, "")  # as good as unset
    return tmp_path


def listen_on_usual_ports(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let servers listen on the ports on which LM Studio always does."""
    monkeypatch.setattr(discovery, "local_candidates", lambda: tuple(Address("127.0.0.1", port) for port in ports))


def announce(folder: Path, content: object) -> Path:
    """Write the record of a server into the folder of its application."""
    path = folder / ".internal" / "http-server.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def by_pointer(home: Path) -> Path:
    (home / ".lmstudio-home-pointer").write_text(f"{home}/elsewhere\n", encoding="utf-8")
    return home / "elsewhere"


def by_link(home: Path) -> Path:
    (home / "elsewhere").mkdir()
    (home / ".lmstudio").symlink_to("elsewhere")
    return home / ".lmstudio"


@pytest.mark.parametrize(
    "folder",
    [lambda home: home / ".lmstudio", lambda home: home / ".cache" / "lm-studio", by_pointer, by_link],
    ids=["default", "cache", "pointer", "link"],
)
async def test_the_server_that_is_written_down_is_found_on_any_port(
    home: Path, server: Emulator, folder: Callable[[Path], Path]
) -> None:
    path = announce(folder(home), {"host": "::", "pid": os.getpid(), "port": server.port})
    found, attempts = await discover()
    assert found == Address("127.0.0.1", server.port)
    status = probe.ServerStatus("lmstudio", environment.__version__)
    assert attempts == (Attempt(f"ws://{server.address}", str(path), status=status),)
    async with lms.AsyncClient() as client:
        assert await client.find_default_local_api_host() == server.address
        assert (await client.llm.model("chatty")).identifier == "chatty"
    assert await lms.AsyncClient.is_valid_api_host(server.address)


async def test_it_is_preferred_to_the_usual_ports_and_those_follow_it(
    home: Path, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await lms.AsyncClient.find_default_local_api_host() is None
    with Emulator(MODELS) as usual:
        listen_on_usual_ports(monkeypatch, usual.port)
        path = announce(home / ".lmstudio", {"port": server.port})
        assert (await discover())[0] == Address("127.0.0.1", server.port)
        path.unlink()
        found, attempts = await discover()
        assert found == Address("127.0.0.1", usual.port)
        assert [(each.address, each.source, each.problem) for each in attempts] == [
            (str(path), "server file", "it does not exist"),
            (f"ws://{usual.address}", "discovery port", None),
        ]


async def test_clients_follow_the_file_to_another_server(
    home: Path, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator([{"key": "next"}]) as following:
        path = announce(home / ".lmstudio", {"port": server.port})
        async with lms.AsyncClient() as first:
            assert len(await first.list_downloaded_models()) == len(MODELS)
            for variable in (False, True):
                announce(home / ("other" if variable else ".lmstudio"), {"port": following.port})
                if variable:
                    monkeypatch.setenv(SERVER_FILE_VARIABLE, str(home / "other" / ".internal" / path.name))
                async with lms.AsyncClient() as second:
                    for client in (second, first):
                        assert [each.model_key for each in await client.list_downloaded_models()] == ["next"]
                announce(home / ".lmstudio", {"port": server.port})
                async with lms.AsyncClient() as third:
                    expected = 1 if variable else len(MODELS)
                    assert len(await third.list_downloaded_models()) == expected


Application = Literal["lmstudio", "daemon", "bionic"]
FOLDERS: Mapping[Application, str] = {"lmstudio": ".", "daemon": ".", "bionic": "apps/bionic"}


@dataclass
class Machine:
    """A machine on which applications run, each a server on a port of its own."""

    home: Path
    stack: contextlib.ExitStack
    environment: pytest.MonkeyPatch
    usual_ports: list[int] = field(default_factory=list[int])
    public_ports: list[int] = field(default_factory=list[int])

    def start(self, application: Application) -> int:
        """Start an application, which writes its record; return its port."""
        port = self.stack.enter_context(Emulator(["m"], catalog={"application": application})).port
        self.write(application, {"port": port, "pid": os.getpid()})
        return port

    def write(self, application: Application, content: object) -> Path:
        return announce(self.home / ".lmstudio" / FOLDERS[application], content)

    def erase(self, application: Application) -> None:
        self.write(application, "").unlink()

    def name(self, application: Application) -> None:
        """Name the record of an application in the environment."""
        path = self.home / ".lmstudio" / FOLDERS[application] / ".internal" / "http-server.json"
        self.environment.setenv(SERVER_FILE_VARIABLE, str(path))


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        found = Machine(home, stack, monkeypatch)
        ports, public = found.usual_ports, found.public_ports
        monkeypatch.setattr(discovery, "local_candidates", lambda: tuple(Address("127.0.0.1", each) for each in ports))
        monkeypatch.setattr(
            discovery, "public_candidates", lambda: tuple(Address("127.0.0.1", each) for each in public)
        )
        yield found


def ended_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def bionic_alone(machine: Machine) -> int:
    return machine.start("bionic")


def lm_studio_alone(machine: Machine) -> int:
    return machine.start("lmstudio")


def lm_studio_beside_bionic(machine: Machine) -> int:
    machine.start("bionic")
    return machine.start("lmstudio")


def llmster_without_a_record_beside_bionic(machine: Machine) -> int:
    machine.start("bionic")
    port = machine.start("daemon")
    machine.erase("daemon")
    machine.usual_ports.append(port)
    return port


def bionic_beside_what_an_ended_process_left(machine: Machine) -> int:
    """The port of the ended process has another server by now, which no record names."""
    other = machine.start("lmstudio")
    machine.write("lmstudio", {"port": other, "pid": ended_process()})
    return machine.start("bionic")


def bionic_beside_a_leftover_that_names_its_developers(machine: Machine) -> int:
    """The number of the process that wrote the leftover is that of another process by now."""
    other = machine.start("bionic")
    machine.usual_ports.append(other)
    machine.write("lmstudio", {"port": other, "pid": os.getpid()})
    return machine.start("bionic")


def bionic_beside_a_leftover_of_an_ended_one(machine: Machine) -> int:
    other = machine.start("bionic")
    machine.usual_ports.append(other)
    machine.write("lmstudio", {"port": other, "pid": ended_process()})
    return machine.start("bionic")


def bionic_beside_a_record_that_says_nothing(machine: Machine) -> int:
    machine.write("lmstudio", {"pid": os.getpid()})
    return machine.start("bionic")


def bionic_by_the_variable(machine: Machine) -> int:
    machine.start("lmstudio")
    port = machine.start("bionic")
    machine.name("bionic")
    return port


def a_variable_whose_file_has_gone(machine: Machine) -> None:
    machine.start("lmstudio")
    machine.start("bionic")
    machine.name("bionic")
    machine.erase("bionic")


def an_early_bionic(machine: Machine) -> int:
    """Its first versions had their record where LM Studio has it."""
    port = machine.start("bionic")
    machine.erase("bionic")
    machine.write("lmstudio", {"port": port})
    return port


def bionic_on_its_public_port(machine: Machine) -> int:
    """Its record is lost."""
    port = machine.start("bionic")
    machine.erase("bionic")
    machine.public_ports.append(port)
    return port


def bionic_by_a_scan(machine: Machine) -> None:
    """It may be one of its developers."""
    machine.usual_ports.append(machine.start("bionic"))
    machine.erase("bionic")


def an_ended_bionic(machine: Machine) -> None:
    machine.start("lmstudio")
    machine.erase("lmstudio")
    machine.write("bionic", {"port": machine.start("bionic"), "pid": ended_process()})


def a_leftover_of_bionic_whose_port_lm_studio_has(machine: Machine) -> None:
    machine.write("bionic", {"port": machine.start("lmstudio")})
    machine.erase("lmstudio")


def nothing(machine: Machine) -> None:
    """No application has run."""


@pytest.mark.parametrize(
    "run",
    [
        bionic_alone,
        lm_studio_alone,
        lm_studio_beside_bionic,
        llmster_without_a_record_beside_bionic,
        pytest.param(bionic_beside_what_an_ended_process_left, marks=pytest.mark.slow),
        bionic_beside_a_leftover_that_names_its_developers,
        pytest.param(bionic_beside_a_leftover_of_an_ended_one, marks=pytest.mark.slow),
        bionic_beside_a_record_that_says_nothing,
        bionic_by_the_variable,
        a_variable_whose_file_has_gone,
        an_early_bionic,
        bionic_on_its_public_port,
        bionic_by_a_scan,
        pytest.param(an_ended_bionic, marks=pytest.mark.slow),
        a_leftover_of_bionic_whose_port_lm_studio_has,
        nothing,
    ],
)
async def test_the_application_is_the_one_that_its_command_line_uses(
    machine: Machine, run: Callable[[Machine], int | None]
) -> None:
    port = run(machine)
    found, attempts = await discover()
    assert (found and found.port) == port
    assert next((each.server for each in attempts if each.problem is None), None) == found
    if found is not None:
        async with lms.AsyncClient() as client:
            assert [each.model_key for each in await client.list_downloaded_models()] == ["m"]


NOT_ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="has no such files")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        ("{", "it is not JSON"),
        ("[4711]", "it has no 'port' from 1 to 65535"),
        ("{}", "it has no 'port' from 1 to 65535"),
        ('{"port": 0}', "it has no 'port' from 1 to 65535"),
        ('{"port": 1234.5}', "it has no 'port' from 1 to 65535"),
        ('{"port": 4711, "pid": 0}', "its 'pid' is not the number of a process"),
        (f'{{"port": 4711, "pid": {10**30}}}', f"its process {10**30} has ended"),
        ('{"port": true}', "it has no 'port' from 1 to 65535"),
        ('{"port": 65536}', "it has no 'port' from 1 to 65535"),
        ("\0" * 70_000, "it is too large"),
        (lambda path: path.write_bytes(b"\xff"), "it is not UTF-8"),
        (Path.mkdir, "it is not a file"),
        pytest.param(a_pipe, "it is not a file", marks=NOT_ON_WINDOWS),
        pytest.param(a_loop, "it cannot be read (Too many levels of symbolic links)", marks=NOT_ON_WINDOWS),
    ],
)
async def test_an_unreadable_file_is_a_clear_line(
    home: Path,
    server: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    make: str | Callable[[Path], object],
    problem: str,
) -> None:
    listen_on_usual_ports(monkeypatch, server.port)
    path = announce(home / ".lmstudio", make if isinstance(make, str) else "")
    if not isinstance(make, str):
        path.unlink()
        make(path)
    found, (attempt, _) = await discover()
    assert found is not None
    assert attempt == Attempt(str(path), "server file", problem)
    monkeypatch.setenv(SERVER_FILE_VARIABLE, str(path))  # with which nothing else is tried
    assert await discover() == (None, (Attempt(str(path), SERVER_FILE_VARIABLE, problem),))


@pytest.mark.parametrize("pointer", ["", "somewhere", "{home}\0"])
async def test_an_invalid_pointer_is_a_clear_line(home: Path, pointer: str) -> None:
    (home / ".lmstudio-home-pointer").write_text(pointer.format(home=home), encoding="utf-8")
    found, (attempt,) = await discover()
    assert found is None
    assert str(attempt).endswith("home-pointer: it does not have the absolute path of a folder")
    assert str(attempt).isprintable()


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (None, "nothing listens there (Connection refused)"),
        (b"\x00" * 16, "something listens there that does not speak HTTP"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "something else listens there, not LM Studio"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"lmstudio": true}', "something else listens there, not LM Studio"),
        (
            b'HTTP/1.1 200 OK\r\n\r\n{"package": "lmstudio", "version": 1}',
            "something else listens there, not LM Studio",
        ),
    ],
)
async def test_another_program_on_the_port_is_not_mistaken_for_lm_studio(
    home: Path, response: bytes | None, problem: str
) -> None:
    with listening(response or b"") as address:
        path = announce(home / ".lmstudio", {"port": Address.parse(address).port})
        found = await discover() if response is not None else None
    nowhere, (attempt, _) = found or await discover()
    assert nowhere is None
    assert attempt == Attempt(f"ws://{address}", str(path), problem)


GREETINGS = {
    "lms-status": b'{"package": "lmstudio", "version": "0.4.1"}',
    "lmstudio-greeting": b'{"lmstudio": true}',
}


def in_chunks(body: bytes) -> bytes:
    sizes = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:]))
    return b"Transfer-Encoding: chunked\r\n\r\n" + sizes + b"0\r\n\r\n"


def with_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("path", GREETINGS)
@pytest.mark.parametrize(
    "encode", [lambda body: b"\r\n" + body, with_length, in_chunks], ids=["end", "length", "chunks"]
)
@in_virtual_time
async def test_a_body_may_come_in_segments_on_a_connection_that_stays_open(
    path: str, encode: Callable[[bytes], bytes]
) -> None:
    bodies = iter([GREETINGS[path], b'{"status": "up"}'])

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = next(bodies)
        for byte in b"HTTP/1.1 200 OK\r\n" + encode(body):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        if body == GREETINGS[path]:
            await reader.read()  # until the client closes
        writer.close()

    other = await asyncio.start_server(respond, "127.0.0.1", 0)
    address = Address("127.0.0.1", other.sockets[0].getsockname()[1])
    find = probe.probe if path == "lmstudio-greeting" else probe.probe_status
    assert not isinstance(await find(address), probe.Finding)
    finding = await find(address)
    assert isinstance(finding, probe.Finding)
    assert finding.reason == "something else listens there, not LM Studio"


async def test_a_body_without_end_is_not_read_without_end(home: Path) -> None:
    with listening(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1_000_000) as address:
        finding = await probe.probe(Address.parse(address))
    assert finding is not None
    assert finding.reason == "something else listens there, not LM Studio"


@in_virtual_time
async def test_a_program_that_says_nothing_is_not_waited_for_without_end(home: Path) -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    address = Address("127.0.0.1", silent.sockets[0].getsockname()[1])
    announce(home / ".lmstudio", {"port": address.port})
    _, (attempt, _) = await discover()
    assert attempt.problem == "no response within 600 s"
    assert await diagnose(address) == f"no response within 600 s; {NO_RESPONSE}"


@pytest.mark.parametrize("value", ["/nowhere", "a\nb"])
async def test_the_variable_rules_out_everything_else(
    home: Path, server: Emulator, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    announce(home / ".lmstudio", {"port": server.port})
    monkeypatch.setenv(SERVER_FILE_VARIABLE, value)
    async with lms.AsyncClient(api_token=TOKEN) as client:  # others share a connection that is open already
        with pytest.raises(lms.LMStudioUnreachableError) as caught:
            await client.llm.model("chatty")
    assert "unset LMS_API_SERVER_INFO_PATH, with which nothing else is tried" in str(caught.value)
    assert [text.isprintable() for text in caught.value.tried] == [True]


async def test_a_given_host_and_the_variable_for_it_come_first(
    home: Path, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVER_FILE_VARIABLE, "/nowhere")
    async with lms.AsyncClient(server.address) as client:
        assert await client.list_downloaded_models()
    monkeypatch.setenv(HOST_VARIABLE, server.address)
    async with lms.AsyncClient() as client:
        assert await client.list_downloaded_models()


def test_places_that_failed_alike_are_listed_together() -> None:
    attempts = [
        Attempt("/home/me/.lmstudio/.internal/http-server.json", "server file", "it does not exist"),
        Attempt("ws://127.0.0.1:1", "discovery port", "refused"),
        Attempt("ws://127.0.0.1:2", "discovery port", "no response"),
        Attempt("ws://127.0.0.1:3", "public port", "refused"),
    ]
    assert (
        "\n  tried: /home/me/.lmstudio/.internal/http-server.json (server file): it does not exist; "
        "127.0.0.1:1, 127.0.0.1:3: refused; 127.0.0.1:2: no response\n"
    ) in not_found(attempts)


async def test_a_home_that_this_user_may_not_read_is_a_clear_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    found, attempts = await discover()
    assert found is None
    assert [str(each) for each in attempts] == [
        f"{home / '.lmstudio' / folder / '.internal' / 'http-server.json'}: it cannot be read (Permission denied)"
        for folder in dict.fromkeys(FOLDERS.values())
    ]


async def test_a_user_without_a_home_folder_is_a_clear_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", unknown)
    assert await discover() == (None, (Attempt("~", "server file", "the home folder of this user is unknown"),))


@pytest.fixture
def blocked() -> Iterator[None]:
    """Let tests block other servers."""
    environment.block()
    yield
    environment.unblock()


@pytest.mark.usefixtures("blocked")
async def test_tests_that_block_other_servers_block_the_one_that_is_written_down(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        announce(home / ".lmstudio", {"port": port})
        found, (attempt, _) = await discover()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert found is None
    assert str(attempt.problem).startswith(f"--lmstudio-block rejects the connection to 127.0.0.1:{port}")


LISTENERS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:A17F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41 1 0 100 0 0 10 0
   1: 0100007F:04D2 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 42 1 0 100 0 0 10 0
   2: 0100007F:A17F 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1001        0 43 1 0 20 4 30 10 -1
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000     0        0 44 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:04D2 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000  1000        0 45 1 0 100 0 0 10 0
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
00000000 65534        0 46 1 0 100 0 0 10 0
"""


@pytest.mark.parametrize(
    ("port", "uid", "is_own"),
    [
        (41343, 1000, True),
        (41343, 1001, False),  # has only connected to it
        (8080, 1000, True),  # root's
        (1234, 1000, False),  # two users have listeners on it
        (9, 1000, False),
        (80, 65534, False),  # of anyone outside of the user namespace
    ],
)
def test_linux_tells_whose_listener_it_is(port: int, uid: int, is_own: bool) -> None:
    assert discovery.is_own_listener(port, LISTENERS, uid) is is_own


def by_others(monkeypatch: pytest.MonkeyPatch, path: Path, tables: int = 1) -> None:
    table, port = path.with_name("tcp"), json.loads(path.read_bytes())["port"]
    table.write_text(LISTENERS.replace("A17F", f"{port:04X}").replace(" 1000 ", " 54321 "), encoding="ascii")
    monkeypatch.setattr(discovery, "_NETWORK_TABLES", (str(table),) * tables)


def without_tables(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    by_others(monkeypatch, path, tables=0)


def writable_by_all(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    without_tables(monkeypatch, path)
    path.chmod(0o666)


def on_a_port(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    without_tables(monkeypatch, path)
    port = json.loads(path.read_bytes())["port"]
    path.unlink()
    listen_on_usual_ports(monkeypatch, port)


def named(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    by_others(monkeypatch, path)
    monkeypatch.setenv(SERVER_FILE_VARIABLE, str(path))


@pytest.mark.skipif(os.name == "nt", reason="sees the owner of no file")
@pytest.mark.parametrize(
    ("change", "is_sent"),
    [
        (None, True),
        (by_others, False),
        (without_tables, True),
        (writable_by_all, False),
        (on_a_port, False),
        (named, True),
    ],
)
async def test_a_server_of_others_gets_no_token_and_no_headers(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch, Path], None] | None,
    is_sent: bool,
) -> None:
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        path = announce(home / ".lmstudio", {"port": server.port})
        path.chmod(0o644)
        if change is not None:
            change(monkeypatch, path)
        opened: list[Any] = []

        def connect(*args: Any, **kwargs: Any) -> Connect:
            opened.append(kwargs)
            return Connect(*args, **kwargs)

        monkeypatch.setattr(opening, "Connect", connect)
        async with lms.AsyncClient(None, TOKEN, headers={"X-Secret": "hush", "X-Test": repr(change)}) as client:
            if is_sent:
                assert await client.list_downloaded_models()
            else:
                with pytest.raises(lms.LMStudioAuthenticationError, match=f"set LMSTUDIO_HOST={server.address} or"):
                    await client.list_downloaded_models()
    assert all(bool(each["additional_headers"]) is is_sent for each in opened)
    assert opened
