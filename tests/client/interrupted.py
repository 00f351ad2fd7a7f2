"""A program that makes a call, and the same call in a signal handler, at a chosen moment of the first.

`test_signals.py` runs `python -m tests.client.interrupted MOMENT` in an environment that names the server. Only what is
imported here is imported before the call.
"""

import functools
import importlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.support.signals import send_until

_handling = threading.Event()

# What is called ------------------------------------------------------------------------------------------------------


def _with_client() -> Callable[[], str]:
    import lmstudio_integrations as lms

    client = lms.Client()
    return lambda: client.llm.model("chatty").respond("think").content


def _with_default_client() -> Callable[[], str]:
    import lmstudio_integrations as lms

    def call() -> str:
        model = lms.llm("chatty")
        assert lms.get_default_client().llm.lazy_model()._model.context is model._model.context, (
            "there are two default clients"
        )
        return model.respond("think").content

    return call


def _adapter() -> Any:
    from lmstudio_integrations.langchain import ChatLMStudio

    return ChatLMStudio(model="chatty", load_policy="new_instance")


def _with_adapter() -> Callable[[], str]:
    chat = _adapter()
    return lambda: str(chat.invoke("think").content)


def _with_batch() -> Callable[[], str]:
    chat = _adapter()
    return lambda: str((chat.batch(["think", "think"])[1] if _handling.is_set() else chat.invoke("think")).content)


# When it is interrupted -----------------------------------------------------------------------------------------------


def _in(module: str, name: str) -> Callable[[], None]:
    """Return what lets a function interrupt when it has done its work."""

    def arrange() -> None:
        owner: Any = importlib.import_module(module)
        *owners, function = name.split(".")
        for part in owners:
            owner = getattr(owner, part)
        original = getattr(owner, function)

        @functools.wraps(original)
        def interrupted(*arguments: Any, **keywords: Any) -> Any:
            result = original(*arguments, **keywords)
            send_until(_handling, signal.SIGUSR1)
            return result

        setattr(owner, function, interrupted)

    return arrange


_CLIENT = "lmstudio_integrations.client"
_IO_THREAD = f"{_CLIENT}.concurrency.io_thread"
_CLIENT_MADE = _in(f"{_CLIENT}.api.sync", "Client.__init__")

MOMENTS: dict[str, tuple[Callable[[], Callable[[], str]], Callable[[], None]]] = {
    "when the event loop is made": (_with_client, _in(f"{_CLIENT}.concurrency.threads", "Threads.start_loop")),
    "when the I/O thread is made": (_with_client, _in(_IO_THREAD, "IOThread.__init__")),
    "when the connections are made": (_with_client, _in(f"{_CLIENT}.transport.connections", "Connections.of")),
    "when the default client is made": (_with_default_client, _CLIENT_MADE),
    "when an adapter has made its model": (
        _with_adapter,
        _in("lmstudio_integrations._adapters.request_model", "UsedModel._new_model"),
    ),
    "when an adapter has made its context, in threads": (
        _with_batch,
        _in(f"{_CLIENT}.transport.client_context", "ClientContext.__init__"),
    ),
}

if __name__ == "__main__":
    prepare, arrange = MOMENTS[sys.argv[1]]
    call = prepare()

    def handle(*_: object) -> None:
        if _handling.is_set():  # sent again
            return
        _handling.set()
        print("handler:", call(), flush=True)

    signal.signal(signal.SIGUSR1, handle)
    arrange()
    print("main:", call(), flush=True)
