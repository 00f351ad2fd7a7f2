"""A signal handler makes a call while the main thread is in the middle of one: neither waits for the other."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.interrupted import MOMENTS
from tests.support.embedding import embed_texts
from tests.support.gate import AT_THE_GATE, Gate
from tests.support.signals import send_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no such signals")

Call = Callable[[str], object]


@pytest.mark.sampled(1)
@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_handler_may_make_a_call(server: Emulator, moment: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.client.interrupted", moment],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        | {"LMSTUDIO_HOST": server.address},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (run.stdout.splitlines(), run.stderr) == (["handler: Done.", "main: Done."], "")
    assert len(server.loads) == 1


def _of_models_that_evict_each_other(client: lms.Client) -> tuple[Call, Call]:
    vectors, others = client.embedding.lazy_model("vectors"), client.embedding.lazy_model("others")
    others.embed("Hi")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lms.LMStudioEvictionWarning)
        vectors.embed("Hi")
    return vectors.embed, others.embed


def _of_one_model_one_at_once(client: lms.Client) -> tuple[Call, Call]:
    model = client.embedding.lazy_model("vectors")

    def embed(text: str) -> list[list[float]]:
        vectors: list[list[float]] = embed_texts(
            model, EmbeddingRequest([text], "pass", "chunk_size"), max_concurrency=1
        )
        return vectors

    return embed, embed


@pytest.mark.parametrize("calls", [_of_models_that_evict_each_other, _of_one_model_one_at_once])
def test_a_signal_handler_does_not_wait_for_the_call_that_it_interrupts(
    gate: Gate, calls: Callable[[lms.Client], tuple[Call, Call]]
) -> None:
    rules = ({"when": {"last": "^slowly"}, "then": [AT_THE_GATE]},)
    models = [ModelEntry(key=key, kind="embedding", embedding_length=8, rules=rules) for key in ("vectors", "others")]
    handled: list[object] = []
    begun = threading.Event()
    with Emulator(models, engines=gate.engines()) as server, lms.Client(server.address) as client:
        interrupted, handler = calls(client)
        closing = threading.Timer(20, client.close)  # ends what waits for ever

        def handle(*_: object) -> None:
            if begun.is_set():  # sent again
                return
            begun.set()
            gate.open()
            handled.append(handler("Hi"))

        def send() -> None:
            gate.reached.wait(600)
            send_until(begun, signal.SIGUSR1)

        previous = signal.signal(signal.SIGUSR1, handle)
        sending = threading.Thread(target=send)
        try:
            closing.start()
            sending.start()
            assert interrupted("slowly")
        finally:
            closing.cancel()
            sending.join(600)
            signal.signal(signal.SIGUSR1, previous)
    assert handled
