"""`LMStudioEmbeddings` on a scripted server."""

import asyncio
from collections.abc import Callable

import pytest

from lmstudio_integrations.errors import (
    LMStudioContextOverflowError,
    LMStudioWrongModelKindError,
)
from lmstudio_integrations.langchain import LMStudioEmbeddings
from tests.langchain.conftest import CHAT, EMBEDDING, Server
from tests.support.tqdm_bars import Drawn

LONG = "word " * 600

Documents = Callable[[LMStudioEmbeddings, list[str]], list[list[float]]]


@pytest.fixture(params=["sync", "async"])
def documents(request: pytest.FixtureRequest) -> Documents:
    """Each way to embed documents."""
    if request.param == "sync":
        return lambda embeddings, texts: embeddings.embed_documents(texts)
    return lambda embeddings, texts: asyncio.run(embeddings.aembed_documents(texts))


def test_nothing_is_sent_for_no_texts(documents: Documents) -> None:
    assert documents(LMStudioEmbeddings(model="m", host="127.0.0.1:1"), []) == []


def test_a_language_model_cannot_embed(server: Server, documents: Documents) -> None:
    with pytest.raises(LMStudioWrongModelKindError, match=r'use ChatLMStudio\(model="chatty"\)'):
        documents(server.embeddings(model=CHAT), ["one"])


def test_show_progress_draws_a_bar_for_the_load_and_for_the_texts(
    server: Server, documents: Documents, drawn: Drawn
) -> None:
    vectors = documents(server.embeddings(show_progress=True), [f"text {n}" for n in range(150)])
    text = drawn()
    assert f"Loading {EMBEDDING}" in text
    assert "Embedding 150 texts" in text
    assert "85%|" in text
    assert "100%|" in text
    assert vectors == documents(server.embeddings(), [f"text {n}" for n in range(150)])
    assert drawn() == ""


# Texts that are too long ----------------------------------------------------------------------------------------------


def test_a_larger_context_length_is_advised_where_the_model_allows_it(server: Server, documents: Documents) -> None:
    with pytest.raises(LMStudioContextOverflowError) as caught:
        documents(server.embeddings(context_length=128), ["word " * 300])
    assert "takes 128 of its max_context_length of 512; lower" in str(caught.value)
    assert "or load the model with a context_length of 303 or more, or set length_policy" in str(caught.value)
    with pytest.raises(LMStudioContextOverflowError) as caught:
        documents(server.embeddings(), [LONG])
    assert "takes 128 of its max_context_length of 512; lower" in str(caught.value)
    assert "load the model" not in str(caught.value), "512 would not be enough either"


def test_the_context_length_is_requested_again_before_a_text_is_rejected(server: Server, documents: Documents) -> None:
    embeddings = server.embeddings(context_length=128)
    with pytest.raises(LMStudioContextOverflowError, match="takes 128"):
        documents(embeddings, ["word " * 300])
    server.unload(EMBEDDING)
    server.load(EMBEDDING)
    assert documents(embeddings, ["word " * 300]) == documents(server.embeddings(), ["word " * 300])


def test_a_text_that_is_too_long_may_be_cut_at_its_end(server: Server, documents: Documents) -> None:
    cut, short = documents(server.embeddings(length_policy="truncate"), [LONG, "word"])
    assert cut == pytest.approx(server.embeddings().embed_query("word " * 400), abs=1e-9)
    assert len(short) == 16


def test_long_texts_that_fit_are_counted_and_sent_whole(server: Server, documents: Documents) -> None:
    text = "word " * 300
    assert documents(server.embeddings(), [text, text]) == documents(
        server.embeddings(length_policy="pass"), [text] * 2
    )
