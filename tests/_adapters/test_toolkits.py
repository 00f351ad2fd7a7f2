"""The tools of plugins in both frameworks: what holds for each toolkit, and on each path by which a tool is called."""

import asyncio
import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import pytest
from langchain_core.load import dumps
from pydantic import SecretStr

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import TOKEN_VARIABLES
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import LMStudioToolkit
from lmstudio_integrations.llama_index import LMStudioToolSpec
from tests._adapters.toolkits import (
    ASYNC,
    CHART,
    KINDS,
    PATHS,
    PLUGIN,
    PNG,
    RAISING,
    SECONDS,
    Kind,
    Outcome,
    Sums,
    aresult_of,
    atools_of,
    result_of,
    server,
    server_of,
    sums,
    tools_of,
)
from tests._adapters.ways import AGENT_WARNINGS
from tests.support.leaks import TOKEN, shows_token

__all__ = ["server", "sums"]

pytestmark = AGENT_WARNINGS

HOST = "http://localhost:9/v1"

each_path = pytest.mark.parametrize("path", PATHS)
some_paths = pytest.mark.parametrize("path", ["create_agent", "acall", "FunctionAgent"])
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def take(path: str, question: str, server: Emulator, **settings: Any) -> Outcome:
    """Make a call on a path, with a toolkit of its own."""
    kind, make_call = PATHS[path]
    with kind(PLUGIN, host=server.address, **settings) as toolkit:
        return make_call(toolkit, question)


# What comes of a call -------------------------------------------------------------------------------------------------


RESULTS = {
    "add": Outcome("3", raw=3),
    "chart": Outcome("a chart", [PNG], raw=CHART),
    "data": Outcome('{"rows":[1,null]}', raw={"rows": [1, None]}),
    "text": Outcome("plain", raw="plain"),
    "nothing": Outcome("", raw={"content": []}),
}


@each_path
def test_a_result_is_texts_and_images(server: Emulator, path: str) -> None:
    kind, make_call = PATHS[path]
    with kind(PLUGIN, host=server.address) as toolkit:
        assert {question: make_call(toolkit, question) for question in RESULTS} == RESULTS
    assert {each.state for each in server.tool_calls} == {"ended"}


FAILURES: dict[str, tuple[type[Exception], str, int]] = {
    "fail": (lms.LMStudioPluginToolError, "no api token is loaded", 1),
    "failed": (lms.LMStudioPluginToolError, "the disk is full", 1),
    "invalid": (lms.LMStudioValueError, "a: 'one' is not of type 'integer'", 0),
}
"""What the model may correct: the error, its text, and how often the tool runs."""


@each_path
def test_what_the_model_may_correct_is_a_text(server: Emulator, sums: Sums, path: str) -> None:
    for question, (error, text, runs) in FAILURES.items():
        sums.runs = 0
        if path in RAISING:
            with pytest.raises(error, match=text) as caught:
                take(path, question, server)
            assert type(caught.value) is error
            assert getattr(caught.value, "plugin", PLUGIN) == PLUGIN
        else:
            outcome = take(path, question, server)
            assert outcome.is_error
            assert text in outcome.text
            assert (outcome.images, outcome.raw) == ([], None)
        assert sums.runs == runs


@some_paths
def test_a_lost_connection_is_raised_and_the_tool_is_not_called_again(server: Emulator, sums: Sums, path: str) -> None:
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(take, path, "wait", server)
        server.wait_for(lambda: sums.runs == 1, SECONDS)
        server.stop()
        with pytest.raises(lms.LMStudioToolConnectionLostError, match="what it has done is unknown") as caught:
            call.result(SECONDS)
    assert (caught.value.plugin, caught.value.tool) == (PLUGIN, "wait")
    assert sums.runs == 1
    assert len(server.predictions) <= 1  # the model got no text


@some_paths
def test_a_timeout_is_raised_and_the_model_gets_no_text(server: Emulator, sums: Sums, path: str) -> None:
    with pytest.raises(lms.LMStudioTimeoutError, match=r"timeout expired after 0\.5 s") as caught:
        take(path, "wait", server, timeouts={"total_timeout": 0.5})  # the start of the plugin counts as well
    assert caught.value.timeout_name == "total_timeout"
    server.wait_for(lambda: all(each.state == "aborted" for each in server.tool_calls), SECONDS)
    assert sums.runs <= 1
    assert len(server.predictions) <= 1


@some_paths
def test_reports_are_called_back_while_the_tool_runs(server: Emulator, sums: Sums, path: str) -> None:
    seen: list[lms.ToolReport] = []

    def report(each: lms.ToolReport) -> None:
        seen.append(each)
        if len(seen) == 2:
            sums.gate.open()

    async def areport(each: lms.ToolReport) -> None:
        await asyncio.sleep(0)
        report(each)

    callback = areport if path in ASYNC else report
    assert take(path, "wait", server, on_status=callback, on_warning=callback).text == "done"
    assert [(each.plugin, each.tool, each.text) for each in seen] == [
        (PLUGIN, "wait", "waiting"),
        (PLUGIN, "wait", "for long"),
    ]


@each_kind
async def test_calls_of_threads_and_tasks_are_not_mixed_up_and_share_one_session(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind(PLUGIN, host=server.address)
    values = [f"value {number}" for number in range(30)]

    def ask(value: str) -> str:
        return result_of(tools_of(toolkit)["echo"], value=value)

    async def aask(value: str) -> str:
        return await aresult_of((await atools_of(toolkit))["echo"], value=value)

    with ThreadPoolExecutor(10) as threads:
        calls = [
            aask(value) if number % 2 else asyncio.wrap_future(threads.submit(ask, value))
            for number, value in enumerate(values)
        ]
        assert await asyncio.gather(*calls) == values
    assert len({each.client for each in server.tool_calls}) == 1
    assert server.running_plugins == (PLUGIN,)


@each_kind
def test_threads_that_ask_before_the_session_is_open_share_it(kind: Kind) -> None:
    toolkit: Any = kind(PLUGIN, host="a:1")
    first = toolkit._session()
    assert toolkit._session() is first
    toolkit.timeouts = {"total_timeout": 3}  # it is not in use yet, so that its timeouts count
    assert toolkit._session() is not first


# The session ----------------------------------------------------------------------------------------------------------


@each_kind
def test_nothing_is_opened_before_the_tools_are_asked_for(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind("mcp/none", host=server.address)
    assert not server.connections
    with pytest.raises(lms.LMStudioPluginError, match="mcp/none"):
        tools_of(toolkit)


@each_kind
@pytest.mark.parametrize("forget", ["the toolkit", "the toolkit and its tools"])
def test_a_forgotten_session_is_closed(server: Emulator, kind: Kind, forget: str) -> None:
    toolkit: Any = kind(PLUGIN, host=server.address)
    tools = tools_of(toolkit)
    assert server.running_plugins
    del toolkit
    gc.collect()
    if forget == "the toolkit":
        assert result_of(tools["add"], a=1, b=2) == "3"
    else:
        del tools
        gc.collect()
        server.wait_for(lambda: not server.running_plugins, SECONDS)


@each_kind
async def test_a_closed_toolkit_says_so_and_opens_again(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind(PLUGIN, host=server.address)
    tools = tools_of(toolkit)
    running = asyncio.ensure_future(aresult_of(tools["wait"]))
    await asyncio.to_thread(server.wait_for, lambda: bool(server.tool_calls), SECONDS)
    await toolkit.aclose()
    with pytest.raises(lms.LMStudioCancelledError, match="the session was closed"):
        await running
    await asyncio.to_thread(server.wait_for, lambda: not server.running_plugins, SECONDS)
    with pytest.raises(lms.LMStudioRuntimeError, match="the session was closed; get the tools of a new one"):
        await aresult_of(tools["add"], a=1, b=2)
    async with toolkit:
        assert await aresult_of((await atools_of(toolkit))["add"], a=1, b=2) == "3"
    with toolkit:
        assert result_of(tools_of(toolkit)["add"], a=1, b=2) == "3"
    toolkit.close()  # once more does nothing


@each_kind
@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_has_a_session_of_its_own(server: Emulator, kind: Kind, make_copy: Any) -> None:
    toolkit: Any = kind({PLUGIN: {"prefix": "sums_"}}, host=server.address, timeouts={"total_timeout": SECONDS})
    mine = tools_of(toolkit)
    copied = make_copy(toolkit)
    assert copied == toolkit
    theirs = tools_of(copied)
    toolkit.close()
    with pytest.raises(lms.LMStudioRuntimeError, match="was closed"):
        result_of(mine["sums_add"], a=1, b=2)
    assert result_of(theirs["sums_add"], a=1, b=2) == "3"


@each_kind
def test_an_assignment_takes_effect_with_the_next_call_or_session(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind(PLUGIN, host=server.address)
    tools = tools_of(toolkit)
    assert tools_of(toolkit).keys() == tools.keys()
    toolkit.timeouts = {"total_timeout": 0.1}
    with pytest.raises(lms.LMStudioTimeoutError):
        result_of(tools["wait"])
    toolkit.timeouts = None
    tools_of(toolkit)
    assert result_of(tools["add"], a=1, b=2) == "3"  # the same session
    toolkit.prefix = "my_"
    assert result_of(tools_of(toolkit)["my_add"], a=1, b=2) == "3"
    with pytest.raises(lms.LMStudioRuntimeError, match="was closed"):
        result_of(tools["add"], a=1, b=2)


@each_kind
async def test_a_cancelled_task_does_not_close_the_session_of_others(sums: Sums, kind: Kind) -> None:
    with server_of(sums, latency=0.05) as server:
        toolkit: Any = kind(PLUGIN, host=server.address)
        first = asyncio.ensure_future(atools_of(toolkit))
        second = asyncio.ensure_future(atools_of(toolkit))
        await asyncio.sleep(0)
        first.cancel()
        tools = await second
        assert first.cancelled()
        assert await aresult_of(tools["add"], a=1, b=2) == "3"


# Several plugins ------------------------------------------------------------------------------------------------------


@each_kind
def test_two_tools_of_one_name_need_a_prefix(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind({PLUGIN: {}, "mcp/more-1": None}, host=server.address)
    with pytest.raises(lms.LMStudioValueError, match="'mcp/sums' and 'mcp/more-1' both have a tool 'add'"):
        tools_of(toolkit)
    server.wait_for(lambda: not server.running_plugins, SECONDS)
    toolkit.plugin = {PLUGIN: {}, "mcp/more-1": {"prefix": "more_"}}
    assert repr(toolkit).startswith(f"{kind.__name__}(plugin=['mcp/sums', 'mcp/more-1'], host=")
    tools = tools_of(toolkit)
    assert sorted(tools) == sorted([name for each in ("", "more_") for name in map(f"{each}{{}}".format, NAMES)])
    assert result_of(tools["more_add"], a=1, b=2) == "3"
    assert [(each.plugin, each.tool) for each in server.tool_calls] == [("mcp/more-1", "add")]


NAMES = ("add", "fail", "echo", "wait")


@each_kind
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_several_hosts_are_one_error(kind: Kind, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("LMSTUDIO_HOST", "a:1,b:1")
    toolkit: Any = kind(PLUGIN, host="a:1,b:1" if way == "argument" else None)
    with pytest.raises(lms.LMStudioValueError, match=f"got 2 hosts; make one {kind.__name__} for each"):
        tools_of(toolkit)


@each_kind
def test_a_toolkit_is_on_no_device(kind: Kind) -> None:
    with pytest.raises(lms.LMStudioValueError, match="the tools of a plugin are on no device"):
        tools_of(kind(plugin=PLUGIN, host=["a:1", ("a:1", "Studio")]))


# Settings -------------------------------------------------------------------------------------------------------------


def test_the_constructors_take_the_names_that_people_paste() -> None:
    make: Any = LMStudioToolkit
    toolkit = make(
        "mcp/a", base_url=HOST, api_key="k", prefix="a_", timeouts={"total_timeout": 5}, headers={"X-Team": "a"}
    )
    assert (toolkit.host, toolkit.api_token, toolkit.plugin) == (HOST, SecretStr("k"), "mcp/a")
    both = LMStudioToolkit(plugin={"mcp/a": {"prefix": "a_"}, "mcp/b": None}, on_status=print, ca_file=None)
    assert both == LMStudioToolkit({"mcp/a": {"prefix": "a_"}, "mcp/b": None}, on_status=print)
    spec = LMStudioToolSpec("mcp/a", host=HOST, api_token=SecretStr("k"), spec_functions=["one"])
    assert_type(spec.api_token, SecretStr | None)
    assert (spec.host, spec.api_token, spec.spec_functions) == (HOST, SecretStr("k"), ["one"])
    with pytest.raises(ValueError, match="needs the identifier of a plugin"):
        LMStudioToolkit()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="temperature"):
        LMStudioToolSpec("mcp/a", temperature=0)  # type: ignore[call-arg]


@each_kind
def test_a_setting_that_does_not_fit_is_an_error(kind: Any) -> None:
    with pytest.raises(ValueError, match="unknown setting 'prefx'; did you mean 'prefix'"):
        kind(PLUGIN, prefx="x")
    with pytest.raises(ValueError, match="unknown setting 'temperature'") as caught:
        kind(PLUGIN, temperature=0)
    assert "embedding" not in str(caught.value)
    with pytest.raises(ValueError, match="total_timeout"):
        kind(PLUGIN, timeouts={"total_timeout": -1})
    with pytest.raises(
        lms.LMStudioValueError, match=rf"{kind.__name__} needs .* plugin; write {kind.__name__}\('owner"
    ):
        kind()
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'prefix'"):
        tools_of(kind({PLUGIN: {"prefx": "x"}}))
    with pytest.raises(lms.LMStudioValueError, match="plugin is empty"):
        tools_of(kind(" "))
    assert kind(plugin=PLUGIN, base_url="h:1", api_key="k") == kind(PLUGIN, host="h:1", api_token=SecretStr("k"))


@each_kind
def test_secrets_are_neither_shown_nor_pickled(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = {"url": "a", "password": TOKEN[15:], "arguments": [f"--password={TOKEN[15:]}"]}
    config = {"acme.key": TOKEN, "acme.servers": [server]}
    toolkit = kind(PLUGIN, api_token=TOKEN, headers={"X-Key": TOKEN[15:]}, host="127.0.0.1:9")
    configured = kind({PLUGIN: {"plugin_config": config}}, plugin_config=config)
    for shown in (repr(toolkit), str(toolkit), repr(toolkit.model_dump()), pickle.dumps(toolkit).decode("latin-1")):
        assert not shows_token(shown)
    assert not shows_token(
        repr(configured) + repr(configured.model_dump()) + configured.model_dump_json() + dumps(configured)
    )
    with pytest.raises(ValueError, match="plugin_config") as caught:
        kind(PLUGIN, plugin_config=[config])
    assert not shows_token(str(caught.value))
    assert toolkit.model_copy().api_token.get_secret_value() == TOKEN
    for secret, remedy in (("api_token", "set LM_API_TOKEN"), ("headers", "assign them again")):
        lost = pickle.loads(pickle.dumps(kind(PLUGIN, **{secret: getattr(toolkit, secret)})))
        with pytest.raises(lms.LMStudioAuthenticationError, match=f"when this {kind.__name__} was pickled; {remedy}"):
            tools_of(lost)
    for setting in ("plugin", "plugin_config"):
        lost = pickle.loads(pickle.dumps(kind(**{"plugin": PLUGIN, setting: getattr(configured, setting)})))
        assert not shows_token(pickle.dumps(lost).decode("latin-1") + repr(vars(lost)))
        with pytest.raises(lms.LMStudioAuthenticationError, match=f"the secrets in {setting} were left out when this"):
            tools_of(copy.copy(lost))
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    assert pickle.loads(pickle.dumps(toolkit)).api_token.get_secret_value() == TOKEN


@each_kind
def test_a_pickle_of_a_toolkit_keeps_the_settings_of_plugins_that_are_no_secrets(server: Emulator, kind: Kind) -> None:
    toolkit: Any = kind(PLUGIN, host=server.address, plugin_config={"acme.level": 3, "acme.apiKey": "x"})
    lost = pickle.loads(pickle.dumps(toolkit))
    assert lost.plugin_config["acme.level"] == 3
    lost.plugin_config = toolkit.plugin_config
    assert result_of(tools_of(lost)["add"], a=1, b=2) == "3"
