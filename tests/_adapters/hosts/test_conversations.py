"""Conversations stay on the host that has them in its cache, in both frameworks and on every path."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from llama_index.core.llms import ChatMessage

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.hosts.servers import CHAT, addresses, chat_model, running, servers
from tests._adapters.ways import collected, collected_later
from tests.support.gate import Gate

SYSTEM = "You help the people of a harbor town."
SECONDS = 600.0

Said = list[tuple[str, str]]

_MESSAGES: dict[str, Any] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


def langchain(said: Said) -> Any:
    return [_MESSAGES[role](text) for role, text in said]


def llama_index(said: Said) -> Any:
    return [ChatMessage(text, role=role) for role, text in said]


WAYS: dict[str, tuple[Any, Callable[[Any, Said], Any]]] = {
    "invoke": (ChatLMStudio, lambda model, said: model.invoke(langchain(said)).text),
    "ainvoke": (ChatLMStudio, lambda model, said: asyncio.run(model.ainvoke(langchain(said))).text),
    "stream": (ChatLMStudio, lambda model, said: "".join(each.text for each in model.stream(langchain(said)))),
    "astream": (
        ChatLMStudio,
        lambda model, said: "".join(each.text for each in asyncio.run(collected(model.astream(langchain(said))))),
    ),
    "chat": (LMStudio, lambda model, said: model.chat(llama_index(said)).message.content),
    "achat": (LMStudio, lambda model, said: asyncio.run(model.achat(llama_index(said))).message.content),
    "stream_chat": (LMStudio, lambda model, said: list(model.stream_chat(llama_index(said)))[-1].message.content),
    "astream_chat": (
        LMStudio,
        lambda model, said: asyncio.run(collected_later(model.astream_chat(llama_index(said))))[-1].message.content,
    ),
}

every_way = pytest.mark.parametrize(("make", "respond"), WAYS.values(), ids=WAYS)


@pytest.fixture
def hosts(gate: Gate) -> Iterator[list[Emulator]]:
    models = (chat_model(preload=True, slots=4),)
    with servers(models, models, gate=gate) as emulators:
        yield emulators
        gate.open()


def topics(server: Emulator) -> Counter[str]:
    """Count the calls of a server by their first question."""
    return Counter(each.messages[1]["content"] for each in server.predictions)


@every_way
def test_a_conversation_returns_to_the_host_that_has_it_in_its_cache(
    make: Any, respond: Callable[[Any, Said], Any], hosts: list[Emulator], gate: Gate
) -> None:
    model = make(model=CHAT, host=addresses(hosts))
    model.hosts()
    said: Said = [("system", SYSTEM), ("user", "Question")]
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(respond, model, [("system", SYSTEM), ("user", "hold")])
        hosts[0].wait_for(lambda: running(hosts[0]) == 1, SECONDS)
        said += [("assistant", respond(model, said)), ("user", "And then?")]
        gate.open()
        held.result(SECONDS)
    said += [("assistant", respond(model, said)), ("user", "And now?")]
    respond(model, [("system", SYSTEM), ("user", "Another question")])
    # Another object of the same settings knows it, too.
    respond(make(model=CHAT, host=addresses(hosts)), said)
    assert topics(hosts[0]) == {"hold": 1, "Another question": 1}
    assert topics(hosts[1]) == {"Question": 3}


@pytest.mark.parametrize("way", ["invoke", "achat"])
def test_a_conversation_goes_elsewhere_if_its_host_has_no_free_slot(way: str, gate: Gate) -> None:
    make, respond = WAYS[way]
    models = (chat_model(preload=True, slots=2),)
    with servers(models, models, gate=gate) as hosts:
        model = make(model=CHAT, host=addresses(hosts))
        model.hosts()  # so that the first call goes to the first host
        said: Said = [("system", SYSTEM), ("user", "Question")]
        said += [("assistant", respond(model, said)), ("user", "hold")]
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(respond, model, said) for _ in range(2)]
            hosts[0].wait_for(lambda: running(hosts[0]) == 2, SECONDS)
            respond(model, [*said[:-1], ("user", "And then?")])
            gate.open()
            for each in held:
                each.result(SECONDS)
    assert [len(server.predictions) for server in hosts] == [3, 1]
