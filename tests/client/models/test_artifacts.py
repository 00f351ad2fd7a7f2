"""Downloads of artifacts by a plan: what is sent, what may be chosen, and how it ends."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.both import Awaited, make_client
from tests.client.fake import wait_until
from tests.client.plan_frames import (
    ARTIFACT,
    CANCEL_DOWNLOAD,
    CANCEL_PLAN,
    COMMIT,
    DOWNLOAD,
    NAME,
    NOTHING,
    PROGRESS,
    SUCCESS,
    chosen,
    opened,
    planned,
    ready,
    received,
    updated,
)
from tests.client.transcript_server import reading
from tests.protocol.transcripts import Line

__all__ = ["make_client"]

Q8 = {"resolutionPreference": [{"type": "quantName", "quantName": "q8_0"}]}

KEYS: dict[str, tuple[dict[str, Any], list[Line], list[str]]] = {
    "what the server has planned": (
        {},
        [*opened(), updated(version=0, state="fetching"), ready(), *DOWNLOAD],
        ["talker@Q4_K_M"],
    ),
    "the plan as it is at the end": ({}, [*opened(), ready(), COMMIT, updated(selected=1), *SUCCESS], ["talker@Q8_0"]),
    "nothing, as it is there": ({}, [*opened(), received("planReady", plan=NOTHING), CANCEL_PLAN], ["talker"]),
    "nothing, on a server without actions": ({}, [*opened(), ready(selected=None, owned=0), CANCEL_PLAN], ["talker"]),
    "what is being downloaded": (
        {},
        [*opened(), ready(action="attachToExistingDownload", downloadSizeBytes=0), *DOWNLOAD],
        ["talker@Q4_K_M"],
    ),
    "a plan that is accepted": ({"on_plan": lambda _: True}, [*opened(), ready(), *DOWNLOAD], ["talker@Q4_K_M"]),
    "a form of the caller's": (
        {"on_plan": lambda _: {1: 1}},
        [*opened(), ready(), chosen(1), updated(), updated(selected=1, version=1), *DOWNLOAD],
        ["talker@Q8_0"],
    ),
    "a form that was there": (
        {"on_plan": lambda _: {1: 1}},
        [*opened(), received("planReady", plan=NOTHING), chosen(1), updated(selected=1, owned=0, version=1), *DOWNLOAD],
        ["talker@Q8_0"],
    ),
    "a quantization that the server chose": (
        {"quantization": "q8_0"},
        [*opened(**Q8), ready(selected=1), *DOWNLOAD],
        ["talker@Q8_0"],
    ),
    "a quantization that it did not": (
        {"quantization": "q8_0"},
        [*opened(**Q8), ready(version=4), chosen(1, 5), updated(selected=1, version=5), *DOWNLOAD],
        ["talker@Q8_0"],
    ),
    "a quantization that is there": (
        {"quantization": "q8_0"},
        [
            *opened(**Q8),
            ready(owned=1),
            chosen(None),
            received("planUpdated", plan={**NOTHING, "version": 1}),
            CANCEL_PLAN,
        ],
        ["talker"],
    ),
    "a format": (
        {"compatibility_types": ["gguf"]},
        [*opened(compatibilityTypes=["gguf"]), ready(), *DOWNLOAD],
        ["talker@Q4_K_M"],
    ),
}
"""What is downloaded: the arguments, the conversation with the server, and the keys to load the models with."""


@pytest.mark.parametrize("name", KEYS)
async def test_what_is_downloaded(make_client: Callable[..., Any], name: str) -> None:
    arguments, lines, keys = KEYS[name]
    with reading(lines) as host:
        async with make_client(host) as client:
            plan = await client.repository.download_artifact(NAME, **arguments)
    assert plan.model_keys == keys
    assert plan.is_empty == (CANCEL_PLAN in lines)


FAILED = Line("server", {"type": "channelError", "channelId": 1, "error": {"title": "The hub is away"}})
NOT_CHOSEN = [*opened(), ready(), chosen(1), updated(selected=0, version=1), CANCEL_PLAN]
LEFT_OUT = [*opened(), ready(), chosen(1), updated(selected=1, version=1, nodes=[]), CANCEL_PLAN]
UNKNOWN = "Received channelCreate for unknown endpoint, endpoint = createDownloadPlan"
OTHER = {"quantization": "Q2_K"}
Q2 = {"resolutionPreference": [{"type": "quantName", "quantName": "Q2_K"}]}
WITHOUT_OPTIONS = copy.deepcopy(planned())
del WITHOUT_OPTIONS["nodes"][1]["downloadOptions"]
NAMELESS = copy.deepcopy(planned())
for form in (NAMELESS["nodes"][1]["selected"], *NAMELESS["nodes"][1]["downloadOptions"]):
    del form["quantName"]


def fail(*_: object) -> None:
    raise ZeroDivisionError("of the caller")


ERRORS: dict[str, tuple[dict[str, Any], list[Line], type[Exception], str]] = {
    "no plan": ({}, [*opened(), FAILED], lms.LMStudioServerError, "The hub is away"),
    "an old server": (
        {},
        [*opened(), Line("server", {"type": "communicationWarning", "warning": UNKNOWN})],
        lms.LMStudioUnsupportedError,
        "update LM Studio",
    ),
    "no download": ({}, [*opened(), ready(), COMMIT, FAILED], lms.LMStudioServerError, "The hub is away"),
    "no end": ({}, [*opened(), ready(), COMMIT, SUCCESS[-1]], lms.LMStudioChannelClosedError, "before the result"),
    "a plan without nodes": (
        {},
        [*opened(), received("planReady", plan={}), CANCEL_PLAN],
        lms.LMStudioProtocolError,
        "nodes: Field required",
    ),
    "another form than the caller's": (
        {"on_plan": lambda _: {1: 1}},
        NOT_CHOSEN,
        lms.LMStudioProtocolError,
        "not chosen",
    ),
    "a plan without its model": ({"on_plan": lambda _: {1: 1}}, LEFT_OUT, lms.LMStudioProtocolError, "not chosen"),
    "no such quantization": (
        OTHER,
        [*opened(**Q2), ready(), CANCEL_PLAN],
        lms.LMStudioValueError,
        "no quantization 'Q2_K'; there are Q4_K_M, Q8_0$",
    ),
    "no such quantization, on a server that lists none": (
        OTHER,
        [*opened(**Q2), received("planReady", plan=WITHOUT_OPTIONS), CANCEL_PLAN],
        lms.LMStudioValueError,
        "no quantization 'Q2_K'; there are Q4_K_M$",
    ),
    "no model": (
        OTHER,
        [*opened(**Q2), ready(nodes=[ARTIFACT]), CANCEL_PLAN],
        lms.LMStudioValueError,
        "no quantization 'Q2_K'; the server names none, so omit it$",
    ),
    "no quantizations": (
        OTHER,
        [*opened(**Q2), received("planReady", plan=NAMELESS), CANCEL_PLAN],
        lms.LMStudioValueError,
        "no quantization 'Q2_K'; the server names none, so omit it$",
    ),
    "a callback that fails before the commit": (
        {"on_plan": fail},
        [*opened(), ready(), CANCEL_PLAN],
        ZeroDivisionError,
        "of the caller",
    ),
    "a callback that fails after the commit": (
        {"on_progress": fail},
        [*opened(), ready(), COMMIT, PROGRESS, CANCEL_DOWNLOAD],
        ZeroDivisionError,
        "of the caller",
    ),
    **{
        f"{answer} of a callback": (
            {"on_plan": lambda _, answer=answer: answer},
            [*opened(), ready(), CANCEL_PLAN],
            lms.LMStudioValueError,
            expected,
        )
        for answer, expected in (
            (5, "on_plan must return a bool, None, or a dict of options; got 5"),
            ({0: 0}, "no download option 0 at the node 0"),
            ({1: 2}, "no download option 2 at the node 1"),
            ({1: True}, "no download option True at the node 1"),
            ({"1": 0}, "no download option 0 at the node '1'"),
        )
    },
}
"""What goes wrong: the arguments, the conversation with the server, and the error."""


@pytest.mark.parametrize("name", ERRORS)
async def test_what_goes_wrong(make_client: Callable[..., Any], name: str) -> None:
    arguments, lines, kind, text = ERRORS[name]
    with reading(lines) as host:
        async with make_client(host) as client:
            with pytest.raises(kind, match=text):
                await client.repository.download_artifact(NAME, **arguments)


# The response to a search shows that everything before it has arrived.
SEARCH = Line("client", {"type": "rpcCall", "endpoint": "searchModels", "callId": 1, "parameter": {"opts": {}}})
FOUND = Line("server", {"type": "rpcResult", "callId": 1, "result": {"results": []}})


@pytest.mark.parametrize(
    ("arrived", "answers", "shown", "end"),
    [
        ([updated(selected=1)], [True, True], [1000, 2000], DOWNLOAD),
        ([updated(selected=1)], [True, False], [1000, 2000], [CANCEL_PLAN]),
        ([updated(selected=1), updated(nodes=[ARTIFACT])], [None, None], [1000, 1000], DOWNLOAD),
        ([updated()], [True], [1000], DOWNLOAD),
        ([updated(selected=1)], [False], [1000], [CANCEL_PLAN]),
        ([FAILED], [True], [1000], []),
        ([updated(selected=1)], [{1: 1}, True], [1000, 2000], [chosen(1), updated(selected=1, version=1), *DOWNLOAD]),
    ],
    ids=["agrees", "rejects the change", "changes twice", "the same", "rejects at once", "fails", "chooses"],
)
async def test_nothing_is_downloaded_by_a_plan_that_the_caller_has_not_seen(
    make_client: Callable[..., Any],
    arrived: list[Line],
    answers: list[Any],
    shown: list[int],
    end: list[Line],
) -> None:
    sizes: list[int] = []

    def answer(plan: lms.DownloadPlan) -> Any:
        sizes.append(plan.download_size_bytes)
        return answers[len(sizes) - 1]

    with reading([*opened(), ready(), SEARCH, *arrived, FOUND, *end]) as host:
        async with make_client(host) as client:

            def decide(plan: lms.DownloadPlan) -> Any:
                if not sizes:
                    client.sync.repository.search_models()
                return answer(plan)

            async def async_decide(plan: lms.DownloadPlan) -> Any:
                if not sizes:
                    await client.repository.search_models()
                return answer(plan)

            on_plan = decide if isinstance(client, Awaited) else async_decide
            download = client.repository.download_artifact(NAME, on_plan=on_plan)
            if FAILED in arrived:
                with pytest.raises(lms.LMStudioServerError, match="The hub is away"):
                    await download
            else:
                plan = await download
                assert (plan is None) == (False in answers)
    assert sizes == shown


@pytest.mark.parametrize(
    ("artifact", "remedy"),
    [
        ("Maker/Talker_2", "got 'Maker/Talker_2'; did you mean 'maker/talker-2'?"),
        ("maker/talker@q8_0", "got 'maker/talker@q8_0'; pass quantization='q8_0' beside 'maker/talker'"),
        ("Maker/Talker_2@q8_0", "pass quantization='q8_0' beside 'maker/talker-2'"),
        ("maker/talker@", "got 'maker/talker@'; omit the @"),
        ("Maker/Talker_2@", "did you mean 'maker/talker-2'?"),
        ("talker@q8_0", "got 'talker@q8_0'; for example 'qwen/qwen3-4b'"),
        ("talker", "got 'talker'; for example 'qwen/qwen3-4b'"),
    ],
)
async def test_a_name_that_no_artifact_has_is_rejected(
    client: Any, server: Emulator, artifact: str, remedy: str
) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        await client.repository.download_artifact(artifact)
    assert str(caught.value).endswith(remedy)
    assert server.connections == ()


@pytest.fixture
def absent() -> Any:
    """A server with a model that is to be downloaded."""
    with Emulator([ModelEntry(key=NAME, downloaded=False)]) as server:
        yield server


async def test_the_end_of_a_rejected_plan_is_no_failure(
    make_client: Callable[..., Any], absent: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def reject(plan: lms.DownloadPlan) -> bool:
        sizes.append(plan.download_size_bytes)
        return False

    with caplog.at_level(logging.WARNING):
        async with make_client(absent.address) as client:
            assert await client.repository.download_artifact(NAME, on_plan=reject) is None
            assert len(await client.repository.search_models(NAME)) == 1  # on the same connection
            assert await client.list_downloaded_models() == []
            assert (await client.repository.download_artifact(NAME)).model_keys == [NAME]
            assert [model.model_key for model in await client.list_downloaded_models()] == [NAME]
    assert sizes == [1_000_000]
    assert not caplog.records


async def test_a_connection_that_is_lost_while_the_caller_chooses_is_an_error(
    make_client: Callable[..., Any], absent: Emulator
) -> None:
    async with make_client(absent.address) as client:
        with pytest.raises(lms.LMStudioConnectionLostError):
            await client.repository.download_artifact(NAME, on_plan=lambda _: absent.stop())


async def test_coroutines_choose_as_long_as_they_need(absent: Emulator) -> None:
    async def decide(plan: lms.DownloadPlan) -> bool:
        await wait_until(lambda: True)  # the server and the I/O thread go on meanwhile
        return plan.is_empty

    async with lms.AsyncClient(absent.address) as client:
        assert await client.repository.download_artifact(NAME, on_plan=decide) is None
    with lms.Client(absent.address) as sync, pytest.raises(lms.LMStudioValueError, match="on_plan must be a function"):
        sync.repository.download_artifact(NAME, on_plan=decide)
