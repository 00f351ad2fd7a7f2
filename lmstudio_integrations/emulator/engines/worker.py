"""The worker process: one model behind llama.cpp's own HTTP server, on a free loopback port with a random key.

The only module that touches `xllamacpp`, whose names move between releases; `attributes` lists all that are set.
It must not know who uses it. The agreement with the parent: standard input brings one JSON line of
`WorkerParameters` and then stays open, because its end is the order to leave; standard output gets one JSON line,
`{"url", "key"}` or `{"error", "kind"}`; everything that the engine itself prints goes to standard error.
"""

import importlib
import json
import os
import secrets
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

PROMPT_STEP = 128
"""Tokens of a prompt that are read at once: the step of progress, and the longest wait of a cancel."""

MOST_SLOTS = 256
"""More sequences at once the engine does not know."""

SPARE_HTTP_THREADS = 4
"""Threads beside one for each open stream, for the short calls."""


@dataclass(frozen=True, slots=True)
class WorkerParameters:
    """What to load and how.

    Attributes:
        model: Path of the GGUF file.
        context_length: Tokens of one prediction.
        slots: Predictions that run at once.
        threads: Threads of the computation.
        embedding: Whether vectors are wanted, instead of text.
        cache_length: Tokens that all slots together may hold; 0 for one window each.
        projector: Path of the GGUF file that sees images.
        chat_template: A Jinja template instead of the model's own.
        gpu_layers: Layers on graphics cards; `None` leaves it to the engine.
        flash_attention: Whether to force it on or off; `None` leaves it to the engine.
        cache_types: Storage of keys and values, for example `("q8_0", "f16")`.
        rope_frequency: Base and scale of the position encoding; 0 for the model's own.
        memory_bytes: The most memory that the process may take, weights that are mapped from their file left aside;
            0 for no limit.
    """

    model: str
    context_length: int
    slots: int = 1
    threads: int = 1
    embedding: bool = False
    cache_length: int = 0
    projector: str = ""
    chat_template: str = ""
    gpu_layers: int | None = None
    flash_attention: bool | None = None
    cache_types: tuple[str, str] = ("f16", "f16")
    rope_frequency: tuple[float, float] = (0.0, 0.0)
    memory_bytes: int = 0

    def to_json(self) -> str:
        """Return the line for standard input."""
        return json.dumps(asdict(self))


def attributes(parameters: WorkerParameters, engine: Any, key: str) -> dict[str, Any]:
    """Return every attribute of the engine's parameters that is set, by its dotted name.

    Args:
        parameters: What to load and how.
        engine: The module `xllamacpp`, for its enumerations.
        key: The key that callers must show.
    """
    window = parameters.context_length
    if parameters.embedding:
        # A text must fit into one batch, and the engine dies of one that its sequences cannot share evenly.
        batch = -(-window // parameters.slots) * parameters.slots
    else:
        batch = max(min(PROMPT_STEP, window), parameters.slots)
    values: dict[str, Any] = {
        "model.path": parameters.model,
        "mmproj.path": parameters.projector,
        "chat_template": parameters.chat_template,
        "embedding": parameters.embedding,
        "n_ctx": parameters.cache_length or window * parameters.slots,
        "n_parallel": parameters.slots,
        "kv_unified": parameters.cache_length > 0,
        "n_batch": batch,
        "n_ubatch": batch,
        "cpuparams.n_threads": parameters.threads,
        "cpuparams_batch.n_threads": parameters.threads,
        "rope_freq_base": parameters.rope_frequency[0],
        "rope_freq_scale": parameters.rope_frequency[1],
        "cache_type_k": _member(engine.ggml_type, f"GGML_TYPE_{parameters.cache_types[0].upper()}"),
        "cache_type_v": _member(engine.ggml_type, f"GGML_TYPE_{parameters.cache_types[1].upper()}"),
        # A server starts in any case. Its default port is fixed and open to all, so both are always set.
        "hostnames": ["127.0.0.1"],
        "port": 0,
        "api_keys": [key],
        "n_threads_http": parameters.slots + SPARE_HTTP_THREADS,
        "ui": False,
        # A conversation may end with the assistant's words; they are not to be continued and sent again.
        "prefill_assistant": False,
        # Whole states of earlier prompts would be kept, up to 8 GiB; the slots remember their last one anyway.
        "cache_ram_mib": 0,
        "verbosity": -1,
    }
    if parameters.gpu_layers is not None:
        values["n_gpu_layers"] = parameters.gpu_layers
    if parameters.flash_attention is not None:
        state = "ENABLED" if parameters.flash_attention else "DISABLED"
        values["flash_attn_type"] = _member(engine.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{state}")
    return values


def start(parameters: WorkerParameters, engine: Any) -> tuple[Any, str]:
    """Load the model and return the engine's running server and its key.

    Raises:
        RuntimeError, AttributeError: If the engine cannot load it, or lacks what we set.
    """
    key = secrets.token_hex(16)
    target = engine.CommonParams()
    for name, value in attributes(parameters, engine, key).items():
        _assign(target, name, value)
    server = engine.Server(target)
    # The constructor returns before the engine's loop turns; a server that is dropped before then hangs for ever.
    # A call that must pass through the loop proves that it does.
    if parameters.embedding:
        server.handle_embeddings({"input": ["a"]})
    else:
        server.handle_completions({"prompt": "a", "max_tokens": 1})
    return server, key


def main() -> None:
    """Serve until standard input ends."""
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process leaves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server, reply = _load(sys.stdin.buffer.readline())
    try:
        print(json.dumps(reply), file=answer, flush=True)
        if server is not None:
            sys.stdin.buffer.read()
    except OSError:
        pass  # the parent has gone: leave, too
    os._exit(0)  # the engine's own clean-up may wait for calls that nobody reads any more


def _load(line: bytes) -> tuple[Any, dict[str, str]]:
    """Return the server, if there is one, and the line for the parent."""
    try:
        parameters = WorkerParameters(**json.loads(line))
        limit_memory(parameters.memory_bytes)
        engine = importlib.import_module("xllamacpp")
    except ImportError as error:
        return None, {"error": str(error), "kind": "engine_missing"}
    except (ValueError, TypeError) as error:
        return None, {"error": str(error), "kind": "bad_parameters"}
    try:
        server, key = start(parameters, engine)
    except Exception as error:  # noqa: BLE001 - whatever the engine raises must reach the parent as its answer
        return None, {"error": f"{type(error).__name__}: {error}", "kind": "load_failed"}
    return server, {"url": server.listening_address, "key": key}


def limit_memory(size: int) -> None:
    """Let this process take no more memory, if there is a limit; the parent asks for one only on Linux.

    Linux counts what is private and can be written, reserved or used: weights that are mapped from their file are
    not, as they would be by RLIMIT_AS. An allocation beyond it fails at once, before anybody else feels it.
    """
    if size:
        import resource  # noqa: PLC0415 - not on every system

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        size = size if most == resource.RLIM_INFINITY else min(size, most)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _assign(target: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        target = getattr(target, part)
    setattr(target, last, value)


def _member(kind: Any, name: str) -> Any:
    return getattr(kind, name)


if __name__ == "__main__":
    main()
