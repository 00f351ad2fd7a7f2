"""Which line a warning shows: that of the user's program, whatever packages are between it and this one."""

import sysconfig
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.support.user_warnings import warn_user
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.adapters import LANGUAGE_MODELS

HELPER = """
def ask(call, *given):
    return call(*given)
"""


def installed(folder: str, name: str = "helper") -> tuple[Callable[..., Any], str]:
    """Return a function of a package that is installed in a folder, and its file."""
    file = str(Path(folder) / f"{name}.py")
    module: dict[str, Any] = {"__name__": name}
    exec(compile(HELPER, file, "exec"), module)
    return module["ask"], file


FOLDERS = [
    f"{sysconfig.get_path('purelib')}/agents",
    "/usr/lib/python3/dist-packages",
    sysconfig.get_path("stdlib"),
    "<frozen importlib._bootstrap>",  # which `warnings.warn` does not count
]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_call_by_a_package_of_others_shows_the_line_of_the_user(name: str) -> None:
    adapter, (ask, _) = LANGUAGE_MODELS[name], installed(FOLDERS[0])
    with Emulator([ModelEntry(key="a"), ModelEntry(key="b")]) as server:
        first, second = (adapter.make(model=key, host=server.address) for key in "ab")
        ask(adapter.call, first, "q")
        with pytest.warns(lms.LMStudioEvictionWarning) as caught:
            ask(getattr(second, adapter.method), "q")
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_line_is_outside_of_what_is_installed(folder: str) -> None:
    ask, _ = installed(folder)
    with pytest.warns(UserWarning, match=r"Look here\.") as caught:
        ask(warn_user, "Look here.", UserWarning)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize("runner", [sysconfig.get_path("scripts"), "<frozen runpy>"])
def test_a_program_that_is_installed_as_a_whole_is_shown_itself(runner: str) -> None:
    """In a thread of its own, since the outermost lines are those of the test here."""
    run, _ = installed(runner, "__main__")
    ask, file = installed(f"{sysconfig.get_path('purelib')}/shop", "shop")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=run, args=(ask, warn_user, "Look here.", UserWarning))
        thread.start()
        thread.join()
    assert [each.filename for each in caught] == [file]
