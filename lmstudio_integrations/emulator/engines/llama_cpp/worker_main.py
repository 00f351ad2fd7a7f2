"""The worker process: one model behind llama.cpp's own HTTP server, on a free loopback port with a random key.

The only module that uses `xllamacpp`, whose names change between releases; `attributes` lists all that are set. It runs
as a script and imports nothing of the package. The parent writes one JSON line of `WorkerParameters` to standard input
and keeps it open: when it ends, the worker exits. The worker writes one JSON line to standard output, `{"url", "key"}`
or `{"error", "kind"}`; everything that the engine itself prints goes to standard error.
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
"""Tokens of a prompt that are read at once: the step of progress, and the longest delay of a cancel.

From 64 on, llama.cpp computes attention on the CPU in another way: faster, and with other roundings. They stay in the
prompt cache, so an answer may depend on what the slot has read before, unless a load sets an `eval_batch_size` of 32.
"""

MAX_SLOTS = 256
"""The engine supports no more parallel sequences."""

SPARE_HTTP_THREADS = 4
"""Threads for short calls, besides one for each open stream and one for each idle connection."""


@dataclass(frozen=True, slots=True)
class WorkerParameters:
    """Which model the worker loads, and how.

    Attributes:
        model: Path of the GGUF file.
        context_length: Tokens of one prediction.
        slots: Predictions that run at once.
        threads: Threads of the computation.
        embedding: Whether the model computes vectors instead of text.
        decision: Whether it answers questions instead.
        cache_length: Tokens of a cache that all slots share; 0 for one cache each.
        projector: Path of the GGUF file that encodes images.
        chat_template: A Jinja template instead of the model's own.
        prompt_step: The most tokens of a prompt that are processed at once.
        gpu_layers: Layers on the GPU; `None` lets the engine decide.
        auto_fit: Whether the engine may put fewer layers on the GPU than it would, so that they fit.
        flash_attention: Whether to force it on or off; `None` lets the engine decide.
        cache_types: Storage of keys and values, for example `("q8_0", "f16")`.
        rope_frequency: Base and scale of the position encoding; 0 for the model's own.
        prompt_cache_mib: The memory for prompts that are in no slot any more, in MiB.
        context_checkpoints: States of a slot that are kept, to which a model that cannot rewind can return.
        memory_bytes: The memory limit of the process, without weights that are mapped from their file; 0 for no
            limit.
    """

    model: str
    context_length: int
    slots: int = 1
    threads: int = 1
    embedding: bool = False
    decision: bool = False
    cache_length: int = 0
    projector: str = ""
    chat_template: str = ""
    prompt_step: int = PROMPT_STEP
    gpu_layers: int | None = None
    auto_fit: bool = True
    flash_attention: bool | None = None
    cache_types: tuple[str, str] = ("f16", "f16")
    rope_frequency: tuple[float, float] = (0.0, 0.0)
    prompt_cache_mib: int = 0
    context_checkpoints: int = 32
    memory_bytes: int = 0

    @property
    def http_threads(self) -> int:
        """Threads of the engine's HTTP server, each of which serves one connection."""
        return 2 * self.slots + SPARE_HTTP_THREADS

    def to_json(self) -> str:
        """Return the line for standard input."""
        return json.dumps(asdict(self))


def attributes(parameters: WorkerParameters, engine: Any, key: str) -> dict[str, Any]:
    """Return every attribute of the engine's parameters that is set, by its dotted name.

    Args:
        parameters: What to load and how.
        engine: The module `xllamacpp`, for its enumerations.
        key: The key that callers must send.
    """
    context_length = parameters.context_length
    if parameters.embedding:
        # A text must fit into one batch, and the engine crashes if its sequences cannot share the batch evenly.
        batch = -(-context_length // parameters.slots) * parameters.slots
    else:
        batch = max(min(parameters.prompt_step, context_length), parameters.slots)
    values: dict[str, Any] = {
        "model.path": parameters.model,
        "mmproj.path": parameters.projector,
        "chat_template": parameters.chat_template,
        "embedding": parameters.embedding,
        "n_ctx": parameters.cache_length or context_length * parameters.slots,
        "n_parallel": parameters.slots,
        "kv_unified": parameters.cache_length > 0,
        "n_batch": batch,
        "n_ubatch": batch,
        "cpuparams.n_threads": parameters.threads,
        "cpuparams_batch.n_threads": parameters.threads,
        "fit_params": parameters.auto_fit,
        "rope_freq_base": parameters.rope_frequency[0],
        "rope_freq_scale": parameters.rope_frequency[1],
        "cache_type_k": getattr(engine.ggml_type, f"GGML_TYPE_{parameters.cache_types[0].upper()}"),
        "cache_type_v": getattr(engine.ggml_type, f"GGML_TYPE_{parameters.cache_types[1].upper()}"),
        # The engine always starts a server. Its default port is fixed and reachable from outside, so both are set.
        "hostnames": ["127.0.0.1"],
        "port": 0,
        "api_keys": [key],
        "n_threads_http": parameters.http_threads,
        "ui": False,
        # A conversation may end with an assistant message, which must not be continued and repeated.
        "prefill_assistant": False,
        # What the slots had before. By default, the engine would use up to 8 GiB.
        "cache_ram_mib": parameters.prompt_cache_mib,
        "n_ctx_checkpoints": parameters.context_checkpoints,
        # The model chooses the slot. One that has less than this share of a prompt exchanges what it has for what the
        # prompt cache has of the prompt; see `MOSTLY` in `slots.py`.
        "slot_prompt_similarity": 0.75,
        "verbosity": -1,
    }
    if parameters.gpu_layers is not None:
        values["n_gpu_layers"] = parameters.gpu_layers
    if parameters.flash_attention is not None:
        state = "ENABLED" if parameters.flash_attention else "DISABLED"
        values["flash_attn_type"] = getattr(engine.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{state}")
    return values


def start(parameters: WorkerParameters, engine: Any) -> tuple[Any, str]:
    """Load the model and return the engine's running server and its key.

    Raises:
        RuntimeError, AttributeError: If the engine cannot load it, or has no such attribute.
    """
    key = secrets.token_hex(16)
    target = engine.CommonParams()
    for name, value in attributes(parameters, engine, key).items():
        _assign(target, name, value)
    server = engine.Server(target)
    # The constructor returns before the engine's loop runs; a server that is dropped before then hangs forever.
    # A call that passes through the loop proves that it runs.
    if parameters.embedding:
        server.handle_embeddings({"input": ["a"]})
    elif parameters.decision:
        server.handle_systemone({"state": "a", "questions": {"a": {"type": "noul", "instructions": "a"}}})
    else:
        server.handle_completions({"prompt": "a", "max_tokens": 1})
    return server, key


def main() -> None:
    """Serve until standard input ends."""
    # Ctrl-C in a terminal reaches the whole process group; the parent decides when this process exits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server, reply = _load(sys.stdin.buffer.readline())
    try:
        print(json.dumps(reply), file=output, flush=True)
        if server is not None:
            sys.stdin.buffer.read()
    except OSError:
        pass  # the parent has exited
    os._exit(0)  # the engine's own clean-up may wait for responses that nobody reads


def _load(line: bytes) -> tuple[Any, dict[str, str]]:
    """Return the server, or `None` if loading failed, and the line for the parent."""
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
    except Exception as error:  # noqa: BLE001 - the parent must get whatever the engine raises
        return None, {"error": f"{type(error).__name__}: {error}", "kind": "load_failed"}
    return server, {"url": server.listening_address, "key": key}


def limit_memory(size: int) -> None:
    """Limit the memory of this process, unless `size` is 0; the parent sets a limit only on Linux.

    RLIMIT_DATA counts private writable memory, so weights that are mapped from their file do not count, as they would
    with RLIMIT_AS. An allocation beyond the limit fails at once, before other processes run out of memory.
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


if __name__ == "__main__":
    main()
