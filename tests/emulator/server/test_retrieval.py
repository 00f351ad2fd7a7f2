"""Splitting texts into chunks and ranking them."""

import pytest

from lmstudio_integrations.emulator.server.retrieval import RetrievalConfig, chunk, cosine

TEXT = "\nOne one\n\nTwo two\nThree three three\n\n"


def test_texts_are_split_at_paragraphs_lines_and_words() -> None:
    chunks = chunk(TEXT, 7, RetrievalConfig(chunk_size=12, overlap=0))
    assert [(each.content, each.lines) for each in chunks] == [
        ("One one", (2, 2)),
        ("Two two", (4, 4)),
        ("Three three", (5, 5)),
        ("three", (5, 5)),
    ]
    assert {each.source for each in chunks} == {7}


def test_chunks_overlap_and_a_long_word_is_split() -> None:
    assert [each.content for each in chunk("abcdefgh", 0, RetrievalConfig(chunk_size=4, overlap=2))] == [
        "abcd",
        "cdef",
        "efgh",
    ]
    assert chunk("  \n ", 0, RetrievalConfig()) == []


def test_a_large_overlap_does_not_make_a_chunk_of_every_character() -> None:
    chunks = chunk("x" * 1000, 0, RetrievalConfig(chunk_size=100, overlap=99))
    assert "".join(each.content[:25] for each in chunks[:-1]) + chunks[-1].content == "x" * 1000
    assert len(chunks) == 37


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({}, RetrievalConfig()),
        ({"retrieval.limit": float("inf")}, RetrievalConfig()),
        ({"retrieval.limit": 3.0, "retrieval.embeddingModel": "v"}, RetrievalConfig(limit=3, model="v")),
        ({"retrieval.chunkingMethod": {"chunkSize": 10}}, RetrievalConfig(chunk_size=10, overlap=9)),
        ({"retrieval.chunkingMethod": {"chunkSize": 0, "chunkOverlap": -1}, "retrieval.limit": "x"}, RetrievalConfig()),
    ],
)
def test_invalid_retrieval_settings_have_defaults(fields: dict[str, object], config: RetrievalConfig) -> None:
    assert RetrievalConfig.read(fields) == config


def test_a_vector_of_zeros_has_no_similarity() -> None:
    assert cosine([0, 0], [1, 0]) == 0
    assert cosine([0, 2], [0, 1]) == 1
