"""Conversations stay on the host that has them in its cache, in both frameworks and on every path."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from tests._adapters.hosts.servers import CHAT, addresses, chat_model, running, servers
from tests._adapters.ways import METHODS, messages_of, seen_of
from tests.support.gate import Gate

pytestmark = pytest.mark.leaf("hosts")

SYSTEM = "You help the people of a harbor town."
SECONDS = 600.0

Said = list[tuple[str, str]]


def respond(name: str, model: Any, said: Said) -> str:
    make, method = METHODS[name]
    return str(seen_of(method(model, messages_of(make, said)))["text"])


@pytest.fixture
def hosts(gate: Gate) -> Iterator[list[Emulator]]:
    models = (chat_model(preload=True, slots=4),)
    with servers(models, models, gate=gate) as emulators:
        yield emulators
        gate.open()


def topics(server: Emulator) -> Counter[str]:
    """Count the calls of a server by their first question."""
    return Counter(each.messages[1]["content"] for each in server.predictions)


@pytest.mark.parametrize("name", METHODS)
def test_a_conversation_returns_to_the_host_that_has_it_in_its_cache(
    name: str, hosts: list[Emulator], gate: Gate
) -> None:
    make, _ = METHODS[name]
    model = make(model=CHAT, host=addresses(hosts))
    model.hosts()
    said: Said = [("system", SYSTEM), ("user", "Question")]
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(respond, name, model, [("system", SYSTEM), ("user", "hold")])
        hosts[0].wait_for(lambda: running(hosts[0]) == 1, SECONDS)
        said += [("assistant", respond(name, model, said)), ("user", "And then?")]
        gate.open()
        held.result(SECONDS)
    said += [("assistant", respond(name, model, said)), ("user", "And now?")]
    respond(name, model, [("system", SYSTEM), ("user", "Another question")])
    # Another object of the same settings knows it, too.
    respond(name, make(model=CHAT, host=addresses(hosts)), said)
    assert topics(hosts[0]) == {"hold": 1, "Another question": 1}
    assert topics(hosts[1]) == {"Question": 3}


@pytest.mark.parametrize("name", ["invoke", "achat"])
def test_a_conversation_goes_elsewhere_if_its_host_has_no_free_slot(name: str, gate: Gate) -> None:
    make, _ = METHODS[name]
    models = (chat_model(preload=True, slots=2),)
    with servers(models, models, gate=gate) as hosts:
        model = make(model=CHAT, host=addresses(hosts))
        model.hosts()  # so that the first call goes to the first host
        said: Said = [("system", SYSTEM), ("user", "Question")]
        said += [("assistant", respond(name, model, said)), ("user", "hold")]
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(respond, name, model, said) for _ in range(2)]
            hosts[0].wait_for(lambda: running(hosts[0]) == 2, SECONDS)
            respond(name, model, [*said[:-1], ("user", "And then?")])
            gate.open()
            for each in held:
                each.result(SECONDS)
    assert [len(server.predictions) for server in hosts] == [3, 1]
