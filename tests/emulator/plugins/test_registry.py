"""When plugins start and stop, and who shares them."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lmstudio_integrations._support.installation import install_command
from lmstudio_integrations.emulator.errors import SAMPLE, WireError
from lmstudio_integrations.emulator.plugins import registry as registry_module
from lmstudio_integrations.emulator.plugins.base import CallReports
from lmstudio_integrations.emulator.plugins.entry import PluginEntry
from lmstudio_integrations.emulator.plugins.functions import FunctionPlugin
from lmstudio_integrations.emulator.plugins.registry import PluginRegistry, SharedPlugin, create_plugin
from tests.emulator.plugins.fake_plugin import FakePlugin

NOBODY = CallReports(status=lambda _: None, warn=lambda _: None)


async def soon(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, 5)


@asynccontextmanager
async def session(
    registry: PluginRegistry, plugin: FakePlugin, directory: str | None = None
) -> AsyncGenerator[SharedPlugin]:
    """Open a session; no wait of it is endless."""
    async with asyncio.timeout(5), registry.session(plugin.identifier, directory) as shared:
        yield shared


async def test_a_plugin_starts_with_its_first_session_and_stops_with_the_last() -> None:
    plugin = FakePlugin()
    registry = PluginRegistry([plugin])
    assert plugin.starts == 0
    async with session(registry, plugin) as first:
        async with session(registry, plugin) as second:
            assert first is second
        await registry.close()
        assert (plugin.starts, plugin.stops) == (1, 0)
    await registry.close()
    assert plugin.stops == 1
    async with session(registry, plugin):
        assert plugin.starts == 2
    await registry.close()
    assert plugin.stops == 2


async def test_two_sessions_that_begin_at_once_start_it_once() -> None:
    plugin = FakePlugin()
    plugin.may_start.clear()
    registry = PluginRegistry([plugin])
    async with AsyncExitStack() as stack:
        entered = [asyncio.create_task(stack.enter_async_context(session(registry, plugin))) for _ in range(2)]
        await soon(plugin.started.wait())
        plugin.may_start.set()
        first, second = [await soon(task) for task in entered]
        assert first is second
        assert plugin.starts == 1


async def test_each_working_directory_has_a_plugin_of_its_own() -> None:
    plugin = FakePlugin()
    registry = PluginRegistry([plugin])
    async with session(registry, plugin, "/a") as first, session(registry, plugin, "/b") as second:
        assert first is not second
        assert plugin.directories == ["/a", "/b"]
    await registry.close()
    assert plugin.stops == 2


async def test_functions_have_no_working_directory() -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    registry = PluginRegistry([FunctionPlugin("me/sums", [add])])
    async with registry.session("me/sums", "/a") as first, registry.session("me/sums", "/b") as second:
        assert first is second
    await registry.close()


async def test_a_start_is_cancelled_with_its_last_session_only() -> None:
    plugin = FakePlugin()
    plugin.may_start.clear()
    registry = PluginRegistry([plugin])

    async def use() -> None:
        async with session(registry, plugin):
            pass

    first, second = asyncio.create_task(use()), asyncio.create_task(use())
    await soon(plugin.started.wait())
    first.cancel()
    await soon(asyncio.wait([first]))
    assert plugin.cancelled_starts == 0
    second.cancel()
    await soon(asyncio.wait([second]))
    await registry.close()
    assert (plugin.cancelled_starts, plugin.stops) == (1, 0)
    plugin.may_start.set()
    await soon(use())
    assert plugin.starts == 2


async def test_a_start_that_fails_fails_all_its_sessions_and_is_tried_again_by_the_next() -> None:
    plugin = FakePlugin()
    plugin.failure = WireError("no such program")
    registry = PluginRegistry([plugin])
    for _ in range(2):
        with pytest.raises(WireError, match="no such program"):
            async with session(registry, plugin):
                pass
        await registry.close()
    plugin.failure = None
    async with session(registry, plugin):
        assert plugin.starts == 3


async def test_a_session_waits_until_the_plugin_of_the_last_one_has_stopped() -> None:
    plugin = FakePlugin()
    plugin.may_stop.clear()
    registry = PluginRegistry([plugin])
    async with session(registry, plugin):
        pass
    plugin.started.clear()

    async def use() -> int:
        async with session(registry, plugin):
            return plugin.stops

    following = asyncio.create_task(use())
    await asyncio.sleep(0)
    assert not plugin.started.is_set()
    plugin.may_stop.set()
    assert await soon(following) == 1


async def test_a_plugin_that_died_is_started_anew_by_the_next_session() -> None:
    plugin = FakePlugin()
    registry = PluginRegistry([plugin])
    async with session(registry, plugin) as first:
        with pytest.raises(WireError, match="It has died"):
            await first.running.call("die", {}, NOBODY)
        assert first.has_ended
        async with session(registry, plugin) as second:
            assert not second.has_ended
            assert await second.running.call("echo", {"a": 1}, NOBODY) == {"a": 1}
        assert plugin.starts == 2
    await registry.close()
    assert plugin.stops == 2


@pytest.mark.parametrize(
    ("plugins", "cause"),
    [
        ((), "This server has no plugins."),
        (("a/b", "c/d"), "This server has a/b, c/d."),
        (tuple(f"a/{number}" for number in range(SAMPLE + 5)), "a/19 and 5 more."),
    ],
)
async def test_an_unknown_plugin_is_named_with_those_there_are(plugins: tuple[str, ...], cause: str) -> None:
    registry = PluginRegistry(map(FakePlugin, plugins))
    with pytest.raises(WireError, match='"x/y"') as caught:
        async with registry.session("x/y", None):
            pass
    assert caught.value.cause is not None
    assert caught.value.cause.endswith(cause)


SERVER = "lmstudio_integrations.emulator.plugins.mcp_server"


def test_an_mcp_server_is_made_of_its_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(registry_module, "find_spec", lambda _name: True)
    monkeypatch.setitem(sys.modules, SERVER, SimpleNamespace(McpServer=lambda *a, **kw: made.append((*a, kw))))
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    create_plugin(PluginEntry(identifier="a/b", command=("run", "it"), env={"A": "1"}, working_directory="~/x"))
    create_plugin(PluginEntry(identifier="a/c", url="https://x", headers={"B": "2"}))
    ((_, program), (identifier, address)) = made
    program["working_directory"] = program["working_directory"].replace("\\", "/")
    unset: dict[str, Any] = {"command": None, "url": None, "env": {}, "headers": {}, "working_directory": None}
    assert program == {**unset, "command": ("run", "it"), "env": {"A": "1"}, "working_directory": "/home/me/x"}
    assert identifier == "a/c"
    assert address == {**unset, "url": "https://x", "headers": {"B": "2"}}


@pytest.mark.parametrize(
    "settings",
    [
        {"command": ("run", "--api-key", "RbYtNhGv")},
        {"url": "https://me:RbYtNhGv@host"},
        {"command": ("run",), "env": {"KEY": "RbYtNhGv"}},
        {"url": "https://host", "headers": {"Key": "RbYtNhGv"}},
    ],
)
def test_an_entry_does_not_show_its_secrets(settings: dict[str, Any]) -> None:
    assert "RbYtNhGv" not in repr(PluginEntry(identifier="a/b", **settings))


def test_an_mcp_server_without_the_extra_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        create_plugin(PluginEntry(identifier="a/b", command=("run",)))
    command = install_command("mcp")
    assert str(caught.value) == f"the plugin 'a/b' is an MCP server, which needs mcp; run: {command}"
