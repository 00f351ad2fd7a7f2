"""Vectors, loading and crashes of the llama.cpp engine, on real weights."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.base import EngineError, GenerateRequest
from lmstudio_integrations.emulator.engines.llama_cpp import LlamaCppEngine, LlamaCppModel
from lmstudio_integrations.emulator.engines.llama_cpp.weights import CACHE_VARIABLE
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import Worker
from lmstudio_integrations.emulator.engines.llama_cpp.worker_main import WorkerParameters
from tests.emulator.engines.llama_cpp.models import CHAT, EMBEDDING, STEADY, history_of, load, load_request, rest_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted weights out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedding_model() -> AsyncIterator[LlamaCppModel]:
    progress: list[float] = []
    request = load_request(key=EMBEDDING, kind="embedding", weights=EMBEDDING, context_length=100_000)
    model = await LlamaCppEngine(threads=1, offline=True).load(request, progress.append)
    assert progress == [0.0, 1.0]
    yield model
    await model.close()
    await model.close()


async def test_like_texts_have_like_vectors(embedding_model: LlamaCppModel) -> None:
    question, near, far = [
        await embedding_model.embed(text)
        for text in ("Where do cats sleep?", "A kitten naps on the sofa.", "The stock market fell on Monday.")
    ]
    assert len(question) == 384
    assert sum(value * value for value in question) == pytest.approx(1, abs=1e-3)
    likeness = [sum(a * b for a, b in zip(question, other, strict=True)) for other in (near, far)]
    assert likeness[0] > likeness[1] + 0.2


async def test_an_embedding_model_adds_its_start_and_end(embedding_model: LlamaCppModel) -> None:
    assert await embedding_model.tokenize("hello") == [101, 7592, 102]
    assert await embedding_model.tokenize("") == [101, 102]
    assert len(await embedding_model.embed("")) == 384


async def test_a_text_beyond_the_context_length_of_the_model_is_cut_with_a_warning(
    embedding_model: LlamaCppModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert embedding_model.context_length == 512, "more than the model was made for is not given"
    with caplog.at_level(logging.WARNING):
        long, longer = await embedding_model.embed("tree " * 600), await embedding_model.embed("tree " * 900)
    assert long == pytest.approx(longer, abs=1e-4)
    assert "cut to the 512" in caplog.text


@pytest.mark.parametrize("slots", [1, 2, 4])
async def test_many_texts_at_once_get_their_own_vectors(slots: int) -> None:
    model = await load(key=EMBEDDING, kind="embedding", weights=EMBEDDING, context_length=512, slots=slots)
    try:
        texts = [f"number {number} " * (1 + number) for number in range(24)]
        together = await asyncio.gather(*(model.embed(text) for text in texts))
        alone = [await model.embed(text) for text in texts]
    finally:
        await model.close()
    assert together == [pytest.approx(vector, abs=1e-3) for vector in alone]
    assert len({tuple(vector) for vector in together}) == len(texts)


@pytest.mark.parametrize(("weights", "kind"), [(CHAT, "embedding"), (EMBEDDING, "llm")])
async def test_a_model_of_the_other_kind_is_rejected(weights: str, kind: str) -> None:
    with pytest.raises(EngineError) as caught:
        await load(weights=weights, kind=kind)
    assert caught.value.cause == f"Model is not {kind}."
    assert (caught.value.display_data or {})["code"] == "generic.domainMismatch"


async def test_a_worker_that_dies_takes_its_prediction_with_it() -> None:
    model = await load(context_length=512, slots=1)
    try:
        stream = model.generate(GenerateRequest(STEADY, history_of("Tell a very long story."), context_length=512))
        async for event in stream:
            if isinstance(event, lms.LlmPredictionFragment):
                break
        os.kill(model._worker.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="has crashed without additional information") as caught:
            await rest_of(stream)
        with pytest.raises(EngineError, match=r"\(Exit code: -9\)") as again:
            await model.tokenize("a")
        assert caught.value.fatal
        assert again.value.fatal
    finally:
        await model.close()


async def test_cancelling_a_load_ends_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    started: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
    create = asyncio.create_subprocess_exec

    async def spy(*arguments: Any, **settings: Any) -> asyncio.subprocess.Process:
        process = await create(*arguments, **settings)
        started.put_nowait(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    loading = asyncio.create_task(load())
    process = await started.get()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert process.returncode is not None


async def test_a_load_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(EngineError) as caught:
        await LlamaCppEngine(threads=1, offline=True, load_seconds=0.001).load(load_request(), lambda _: None)
    assert "within 0.001 s" in str(caught.value.cause)


async def test_a_file_that_is_not_a_model_is_rejected_by_the_engine(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(range(200)))
    with pytest.raises(EngineError) as caught:
        await Worker.start(WorkerParameters(model=str(broken), context_length=64), seconds=600)
    assert caught.value.title == "Failed to load model"
    assert "RuntimeError" in str(caught.value.cause)


async def test_a_load_that_fails_names_the_key_and_no_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"nothing")
    with pytest.raises(EngineError) as caught:
        await load(key="my-model", weights=str(weights))
    assert str(caught.value.cause).startswith("my-model: broken.gguf is not a GGUF file")
    assert str(weights) in caplog.text
