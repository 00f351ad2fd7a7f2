"""No raw exception leaves any surface, whatever a server sends; more calls than here: `python -m tests.fuzz`."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.fuzz.mutating_server import FuzzServer
from tests.fuzz.runner import fuzz


@pytest.mark.slow
@pytest.mark.parametrize("surface", ["native", "langchain", "llama_index"])
def test_malformed_packets_raise_typed_errors_only(surface: str) -> None:
    report = fuzz(seed=7, calls=160, only=surface)
    assert not report.raw, report.raw[0]
    assert report.outcomes[surface, "returned"] > 15, "most calls fail, and little is read"
    assert len(report.outcomes) > 5, "few kinds of errors were met"


class FirstRandom(Random):
    """Takes the first of all choices, and lets nothing fail."""

    def random(self) -> float:
        return 1.0

    def choice(self, seq: Any) -> Any:
        return seq[0]


HOSTS_CALLS: dict[str, Callable[[list[str]], Any]] = {
    "invoke": lambda hosts: ChatLMStudio(model="m1", host=hosts).invoke("hi"),
    "stream": lambda hosts: list(ChatLMStudio(model="m1", host=hosts).stream("hi")),
    "chat": lambda hosts: LMStudio(model="m1", host=hosts).complete("hi"),
    "langchain embeddings": lambda hosts: LMStudioEmbeddings(model="m1", host=hosts).embed_query("hi"),
    "llama_index embeddings": lambda hosts: LMStudioEmbedding(model="m1", host=hosts).get_query_embedding("hi"),
}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *((name, "invoke") for name in ("path", "deviceIdentifier", "identifier", "modelKey", "quantization", "name")),
        *(("identifier", call) for call in HOSTS_CALLS if call != "invoke"),
    ],
)
def test_an_odd_member_in_one_reply_harms_no_later_call(name: str, call: str) -> None:
    odd: dict[str, Any] = {"quantization": {"name": {}, "bits": 4}} if name == "name" else {name: {}}

    def with_odd_member(reply: Any, *_: object) -> Any:
        if is_list(reply):
            return [with_odd_member(each) for each in reply]
        if not is_object(reply):
            return reply
        members = {key: with_odd_member(each) for key, each in reply.items()}
        return {**members, **odd} if "instanceReference" in reply else members

    one, other = FuzzServer(with_odd_member), FuzzServer(with_odd_member)
    with one.running(), other.running():
        one.random = other.random = FirstRandom()
        hosts = [one.address, other.address]
        for _ in range(3):
            with suppress(lms.LMStudioError):
                HOSTS_CALLS[call](hosts)
        odd.clear()
        model = ChatLMStudio(model="m1", host=hosts)
        assert len(model.hosts()) == 2
        HOSTS_CALLS[call](hosts)
