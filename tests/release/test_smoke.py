"""The script that uses an installed wheel: each interface works here, too, but the command rejects a checkout."""

import subprocess
import sys

import pytest

from tools import smoke


@pytest.mark.parametrize("interface", smoke.INTERFACES)
def test_each_interface_is_used(interface: str) -> None:
    smoke.use(interface)


def test_an_interface_that_sends_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "INTERFACES", {"silent": lambda host: None})
    with pytest.raises(AssertionError):
        smoke.use("silent")


@pytest.mark.slow
def test_a_checkout_is_no_wheel() -> None:
    run = subprocess.run(
        [sys.executable, "-P", smoke.__file__, "native"], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 1
    assert "this uses the checkout" in run.stderr
