"""The script that uses an installed wheel: each interface works here, too."""

import pytest

from tests.release import smoke


@pytest.mark.parametrize("interface", smoke.INTERFACES)
def test_each_interface_is_used(interface: str) -> None:
    smoke.use(interface)
