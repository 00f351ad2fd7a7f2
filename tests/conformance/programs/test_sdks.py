"""Programs find the same on the emulator with each SDK."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sdk_servers import CHAT, EMBEDDING

from lmstudio_integrations.emulator import Emulator

SDKS = ("lmstudio_integrations", "lmstudio", "@lmstudio/sdk")
PROGRAMS = 11


def test_the_programs_find_the_same_with_each_sdk(run: Any) -> None:
    def find(sdk: str) -> dict[str, Any]:
        with Emulator([CHAT, EMBEDDING], auto_evict=False) as server:
            (found,) = run(sdk, [server])
        return dict(found)

    with ThreadPoolExecutor() as pool:
        found, *others = pool.map(find, SDKS)
    assert len(found) == PROGRAMS
    assert others == [found, found]
