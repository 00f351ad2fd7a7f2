"""Which addresses an image may be downloaded from, how URLs are shown, and the native client's part in it."""

import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmstudio_integrations as lms
from lmstudio_integrations._support.secrets import redacted_url
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import IOTask, ThreadMailbox
from lmstudio_integrations.client.files.fetch import is_public_address
from lmstudio_integrations.emulator import Emulator
from tests.client.fake import context_of
from tests.support.web import PIXEL, WAIT, web_server

NOT_PUBLIC = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    *("::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16"),
    *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"]


def addresses_in(text: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    network = IPv6Network(text) if ":" in text else IPv4Network(text)
    return st.integers(0, network.num_addresses - 1).map(lambda index: network[index])


@given(st.sampled_from(NOT_PUBLIC).flatmap(addresses_in))
def test_no_address_of_a_special_network_is_public(address: IPv4Address | IPv6Address) -> None:
    assert not is_public_address(str(address))
    assert not is_public_address("fe80::1%eth0")


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public_address(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_decides(inner: IPv4Address) -> None:
    public = is_public_address(str(inner))
    assert is_public_address(f"::ffff:{inner}") is public
    assert is_public_address(f"64:ff9b::{inner}") is public
    assert not is_public_address(f"::{inner}")
    assert not is_public_address(f"{IPv6Address((0x2002 << 112) | int(inner) << 80)}")


SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=3).map(lambda text: f"S{text}")


@given(SECRETS, SECRETS, SECRETS, st.sampled_from(["example.com", "[::1]:80", "h:0x", "", "[bad", "a b"]))
def test_a_url_is_shown_without_its_secrets(user: str, password: str, query: str, host: str) -> None:
    shown = redacted_url(f"http://{user}:{password}@{host}/a.png?{query}#{query}")
    assert not any(secret in shown for secret in (user, password, query))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("HTTPS://Example.com:8443/a@2.png?x", "https://example.com:8443/a@2.png"),
        ("http://[::1]/a", "http://[::1]/a"),
        ("http://h/\x1b[2Ja", "http://h/�[2Ja"),
        ("http://h/" + "a" * 200, "http://h/" + "a" * 111 + "…"),
        ("mailto:me", "mailto:…"),
        ("me", "…"),
    ],
)
def test_a_url_is_shown_in_a_line_of_its_own_length(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


# The native client ----------------------------------------------------------------------------------------------------


async def test_images_are_prepared_from_files_and_urls(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PIXEL)
    model = client.llm.lazy_model("chatty")
    with web_server() as web:
        handles = await model.prepare_images([PIXEL, path, web.url()], allow_private_image_hosts=True)
        assert [handle.size_bytes for handle in handles] == [len(PIXEL)] * 3
        with pytest.raises(lms.LMStudioValueError, match="images must be a list"):
            await model.prepare_images(web.url())
        with pytest.raises(lms.LMStudioImageDownloadError, match="not at a public address") as caught:
            await model.prepare_images([web.url("/a.png?key")])
        assert caught.value.url == web.url()


def test_a_task_may_be_cancelled_before_it_begins(server: Emulator) -> None:
    io, go_on = IOThread.current(), threading.Event()
    with lms.Client(server.address) as client:
        io.submit(go_on.wait, WAIT)
        never = IOTask(io, ThreadMailbox(io), _never).result()
        next(never)
        never.close()
        task = next(context_of(client).run_task(_never))
        client.close()
        go_on.set()
    mailbox = task.mailbox
    assert isinstance(mailbox, ThreadMailbox)
    with pytest.raises(lms.LMStudioConnectionLostError, match="closed"):
        mailbox.wait()


async def _never() -> None:
    raise AssertionError("it is cancelled before it runs")
