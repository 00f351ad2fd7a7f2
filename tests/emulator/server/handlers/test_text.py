"""The endpoints for tokens, templates and vectors."""

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import STACK, Wire, named, prediction_request, wire


def test_the_count_is_the_number_of_tokens(me: Wire) -> None:
    parameter = {"specifier": named("chat"), "inputString": "one two three"}
    assert len(me.result("tokenize", parameter)["tokens"]) == me.result("countTokens", parameter)["tokenCount"] == 3


@pytest.mark.parametrize(("text", "count"), [("one two", 2), ("", 0)])
def test_added_tokens_of_an_embedding_model_do_not_count(server: Emulator, text: str, count: int) -> None:
    parameter = {"specifier": named("vectors"), "inputString": text}
    with wire(server, "embedding") as me:
        assert len(me.result("tokenize", parameter)["tokens"]) == count + 2
        assert me.result("countTokens", parameter) == {"tokenCount": count}


def test_a_text_becomes_a_vector(server: Emulator) -> None:
    with wire(server, "embedding") as me:
        found = me.result("embedString", {"modelSpecifier": named("vectors"), "inputString": "Hello"})
    assert [type(number) for number in found["embedding"]] == [float] * 8


def test_a_template_takes_files_that_are_not_there_and_two_system_messages(me: Wire) -> None:
    file = {"type": "file", "name": "x.txt", "identifier": "nowhere", "sizeBytes": 1, "fileType": "text/plain"}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, file]},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    ]
    parameter = {
        "specifier": named("chat"),
        "history": {"messages": messages},
        "predictionConfigStack": STACK,
        "opts": {},
    }
    formatted = me.result("applyPromptTemplate", parameter)["formatted"]
    assert all(text in formatted for text in ("Be brief.", "Hello", "Be kind."))


NO_DRAFT_MODEL = {"title": 'Cannot find model "nothing"', "rootTitle": 'Cannot find model "nothing"'}
"""Without a code: for one, the official SDKs would print a text of their own (docs/protocol.md#recorded-answers)."""


def test_preloading_requires_an_existing_draft_model(me: Wire) -> None:
    assert me.call("preloadDraftModel", {"specifier": named("chat"), "draftModelKey": "blind"}) == {"type": "rpcResult"}
    assert me.rpc_error("preloadDraftModel", {"specifier": named("chat"), "draftModelKey": "nothing"}) == NO_DRAFT_MODEL


def test_a_prediction_requires_an_existing_draft_model(me: Wire) -> None:
    fields = {"speculativeDecoding.draftModel": "nothing"}
    assert me.stream("predict", prediction_request("chat", fields=fields))[-1]["error"] == NO_DRAFT_MODEL
