"""What must not be interrupted runs in another thread than the main one, if there can be one."""

import threading
from typing import NoReturn

import pytest

from lmstudio_integrations.client.transport import io_thread
from lmstudio_integrations.client.transport.io_thread import uninterrupted


def test_a_function_runs_in_another_thread_and_its_result_or_error_comes_back() -> None:
    assert uninterrupted(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)


def test_a_function_runs_at_once_where_no_signal_handler_runs() -> None:
    threads: list[int] = []
    thread = threading.Thread(target=lambda: threads.append(uninterrupted(threading.get_ident)))
    thread.start()
    thread.join(600)
    assert threads == [thread.ident]


def test_a_function_runs_although_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(io_thread, "start_new_thread", fail)
    assert uninterrupted(threading.get_ident) == threading.get_ident()
