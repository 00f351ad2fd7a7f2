"""`get`: which model and which form of it is downloaded, when it asks, and how it is cancelled."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from lmstudio_integrations.cli import _get_artifact, _questions
from lmstudio_integrations.cli._get import choose_form, choose_model, describe_form
from lmstudio_integrations.cli._get_artifact import plan_lines
from lmstudio_integrations.client.api.sync import AvailableModel, Client, DownloadOption
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.download_plans import DownloadPlan
from lmstudio_integrations.types.models import DownloadOptionInfo, SearchResultInfo
from tests.cli.terminal import TIMEOUT, interrupt, needs_pty, on_terminal, started
from tests.client.plan_frames import (
    ARTIFACT,
    CANCEL_PLAN,
    DOWNLOAD,
    NAME,
    NEWER,
    SUCCESS,
    chosen,
    opened,
    planned,
    ready,
    updated,
)
from tests.client.transcript_server import reading
from tests.protocol.transcripts import Line

Run = Callable[..., int | str | None]
Capture = pytest.CaptureFixture[str]
TALKER, OTHER = "vendor/talker", "vendor/other"


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with two models to download."""
    with Emulator([ModelEntry(key=key, downloaded=False, size_bytes=1_000) for key in (TALKER, OTHER)]) as emulator:
        yield emulator


def downloaded(server: Emulator) -> list[str]:
    with Client(server.address) as client:
        return [model.model_key for model in client.list_downloaded_models()]


FORM = f"{TALKER} (1.00 kB, gguf, fits without a GPU)"
LOADS = f"`lmsi load {TALKER}` loads it."


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        ([], [f"Downloading {TALKER} (1.00 kB).", f"  {FORM}", f"Downloaded. {LOADS}"]),
        (["--limit", "1"], [f"Downloading {FORM}", f"Downloaded. {LOADS}"]),
    ],
    ids=["from the hub", "from a search"],
)
def test_a_model_with_the_exact_name_is_downloaded_and_its_key_printed(
    server: Emulator, run: Run, capsys: Capture, arguments: list[str], notes: list[str]
) -> None:
    assert run("get", TALKER, *arguments, "--host", server.address) == 0
    out, err = capsys.readouterr()
    assert out == f"{TALKER}\n"
    assert err.splitlines() == notes
    assert downloaded(server) == [TALKER]


def test_what_is_there_is_not_downloaded_again(server: Emulator, run: Run, capsys: Capture) -> None:
    assert run("get", TALKER, "--yes", "--host", server.address) == 0
    capsys.readouterr()
    assert run("get", TALKER, "--host", server.address) == 0
    assert capsys.readouterr() == (f"{TALKER}\n", f"It was downloaded before. {LOADS}\n")


def test_what_the_hub_does_not_have_is_searched_for(server: Emulator, run: Run, capsys: Capture) -> None:
    assert run("get", "vendor/talk", "--yes", "--host", server.address) == 0
    out, err = capsys.readouterr()
    assert out == f"{TALKER}\n"
    reason = 'Cannot find a model to download with the identifier "vendor/talk"'
    assert err.splitlines() == [
        f"vendor/talk was not found on the hub ({reason}); searching for it.",
        f"Downloading {FORM}",
        f"Downloaded. {LOADS}",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vendor"], f"name one, or use --yes for '{TALKER}'; choices: {TALKER}; {OTHER}"),
        (["talk"], f"name one, or use --yes for '{TALKER}'; choices: {TALKER}"),
        ([], f"name one, or use --yes for '{TALKER}'; choices: {TALKER}; {OTHER}"),
        ([TALKER, "--always-show-all-results"], f"omit --always-show-all-results; choices: {TALKER}"),
    ],
)
def test_without_an_exact_name_and_a_terminal_nothing_is_downloaded(
    server: Emulator, run: Run, arguments: list[str], expected: str
) -> None:
    error = run("get", *arguments, "--host", server.address)
    assert error == f"Error: not a terminal, so cannot ask; {expected}"
    assert downloaded(server) == []


def test_the_first_match_is_downloaded_on_request(server: Emulator, run: Run) -> None:
    assert run("get", "vendor", "--yes", "--host", server.address) == 0
    assert downloaded(server) == [TALKER]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([f"{TALKER}@q9"], "there is no quantization 'q9'; the server names none, so omit it"),
        (["zzz"], "no model to download matches 'zzz'; try fewer words"),
        (["Qwen/Qwen3_4B"], "no model to download matches 'Qwen/Qwen3_4B'; did you mean 'qwen/qwen3-4b'?"),
        (["Qwen/Qwen3@q4"], "no model to download matches 'Qwen/Qwen3'; did you mean 'qwen/qwen3@q4'?"),
        (["talk", "--mlx"], "no model to download matches 'talk'; try fewer words"),
        (["local/zzz"], 'Cannot find a model to download with the identifier "local/zzz"'),
    ],
)
def test_what_does_not_exist_is_an_error(server: Emulator, run: Run, arguments: list[str], expected: str) -> None:
    assert run("get", *arguments, "--host", server.address) == f"Error: {expected}"


def test_a_search_can_be_limited_to_a_format(server: Emulator, run: Run) -> None:
    assert run("get", TALKER, "--gguf", "-n", "3", "--host", server.address) == 0


def test_a_quantization_must_follow_an_at_sign(server: Emulator, run: Run, capsys: Capture) -> None:
    assert run("get", f"{TALKER}@", "--host", server.address) == 2
    assert "no quantization follows the @; omit the @" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--always-show-all-results", "-a"])
def test_picking_and_yes_exclude_each_other(server: Emulator, run: Run, flag: str) -> None:
    assert run("get", TALKER, "--yes", flag, "--host", server.address) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["absent", "local/absent"])
def test_an_interrupt_cancels_the_download(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def locate(*_: object, **__: object) -> None:
        reached.set()
        go_on.wait(TIMEOUT)

    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", locate)
    entry = ModelEntry(key="absent", weights="smollm2-135m-instruct", downloaded=False)
    with Emulator([entry]) as server:
        try:
            with started("get", name, "--host", server.address) as process:
                assert reached.wait(TIMEOUT)
                code, out, err = interrupt(process)
            assert (code, out) == (130, "")
            assert "Traceback" not in err
            server.wait_for(lambda: not server.connections, timeout=TIMEOUT)
        finally:
            go_on.set()
        assert downloaded(server) == []


@pytest.mark.slow
@needs_pty
def test_on_a_terminal_the_user_picks_and_sees_a_bar(server: Emulator) -> None:
    with on_terminal("get", "vendor", "--host", server.address) as terminal:
        terminal.wait_for(OTHER)
        terminal.wait_for("Model [1]: ")
        terminal.type("2\n")
        assert terminal.wait() == 0
    assert "━" in terminal.text
    assert downloaded(server) == [OTHER]


# Plans --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let a person at a terminal type these lines; returns what is asked."""

    def type_lines(*lines: str) -> list[str]:
        left, asked = iter(lines), list[str]()

        def read_line(prompt: str) -> str:
            asked.append(prompt)
            return next(left)

        for module in (_questions, _get_artifact):
            monkeypatch.setattr(module, "has_terminal", lambda: True)
        monkeypatch.setattr(_questions, "read_line", read_line)
        return asked

    return type_lines


ASKED = "Download? [Y/n]: "
ALONE = planned()["nodes"]
ALONE[1]["downloadOptions"] = ALONE[1]["downloadOptions"][:1]
PLAN = ["Downloading maker/talker (1.00 kB).", "  Talker (1.00 kB, Q4_K_M, gguf, fits into the GPU)"]
LARGER = ["Downloading maker/talker (2.00 kB).", "  Talker (2.00 kB, Q8_0, gguf, fits into the GPU)"]


@pytest.mark.parametrize(
    ("arguments", "lines", "asked", "conversation", "printed"),
    [
        ([], [""], [ASKED], [*opened(), ready(), *DOWNLOAD], PLAN),
        ([], ["n"], [ASKED], [*opened(), ready(), CANCEL_PLAN], PLAN),
        (["--yes"], [], [], [*opened(), ready(), *DOWNLOAD], PLAN),
        (["-a"], ["", "y"], ["Download [1]: ", ASKED], [*opened(), ready(), *DOWNLOAD], PLAN),
        (
            ["-a"],
            ["2", ""],
            ["Download [1]: ", ASKED],
            [*opened(), ready(), chosen(1), updated(selected=1, version=1), *DOWNLOAD],
            LARGER,
        ),
        (["-a"], [""], [ASKED], [*opened(), ready(nodes=ALONE), *DOWNLOAD], PLAN),
        (["--gguf"], [""], [ASKED], [*opened(compatibilityTypes=["gguf"]), ready(), *DOWNLOAD], PLAN),
    ],
    ids=["agrees", "does not agree", "yes", "picks the same", "picks", "cannot pick", "format"],
)
def test_a_person_sees_the_plan_and_decides(
    run: Run,
    capsys: Capture,
    typed: Callable[..., list[str]],
    arguments: list[str],
    lines: list[str],
    asked: list[str],
    conversation: list[Line],
    printed: list[str],
) -> None:
    prompts = typed(*lines)
    with reading(conversation) as host:
        status = run("get", NAME, *arguments, "--host", host)
    out, err = capsys.readouterr()
    is_downloaded = CANCEL_PLAN not in conversation
    assert (status, out != "") == (0 if is_downloaded else 1, is_downloaded)
    assert prompts == asked
    shown = [line for line in err.splitlines() if line.lstrip()[:2] not in {"1.", "2."}]
    assert shown[:2] == printed
    assert len(shown) == (3 if is_downloaded else 2)


def test_a_plan_names_what_an_artifact_needs() -> None:
    needed = {"type": "artifact", "owner": "maker", "name": "tools", "artifactType": "plugin"}
    model = planned(owned=0, selected=None)["nodes"][1]
    plan = DownloadPlan.from_dict(
        planned(nodes=[ARTIFACT, needed, model, {"type": "model"}, NEWER], action="attachToExistingDownload")
    )
    assert [*plan_lines(NAME, plan)] == [
        "Downloading maker/talker (1.00 kB). It is being downloaded already.",
        "  maker/tools (plugin)",
        "  Talker was downloaded before",
    ]


def test_an_error_after_the_plan_is_raised_and_nothing_is_searched_for(run: Run, capsys: Capture) -> None:
    failed = Line("server", {"type": "channelError", "channelId": 1, "error": {"title": "The disk is full"}})
    with reading([*opened(), ready(), DOWNLOAD[0], failed]) as host:
        assert run("get", NAME, "--host", host) == "Error: The disk is full"
    assert "searching" not in capsys.readouterr().err


FAILED = Line("server", {"type": "channelError", "channelId": 1, "error": {"title": "No network"}})
OLD = "Received channelCreate for unknown endpoint, endpoint = createDownloadPlan"
SEARCH = {"type": "rpcCall", "endpoint": "searchModels", "callId": 1, "parameter": {"opts": {"searchTerm": NAME}}}
FOUND = {"type": "rpcResult", "callId": 1, "result": {"results": []}}


@pytest.mark.parametrize(
    ("end", "noted", "expected"),
    [
        (FAILED, f"{NAME} was not found on the hub (No network); searching for it.\n", "No network"),
        (SUCCESS[-1], "searching for it.\n", "the server closed the channel"),
        (Line("server", {"type": "communicationWarning", "warning": OLD}), "", "update LM Studio"),
    ],
    ids=["no network", "closed", "an old server"],
)
def test_why_there_is_no_plan_is_the_error_if_a_search_finds_nothing(
    run: Run, capsys: Capture, end: Line, noted: str, expected: str
) -> None:
    with reading([*opened(), end, Line("client", SEARCH), Line("server", FOUND)]) as host:
        error = run("get", NAME, "--host", host)
    assert isinstance(error, str)
    assert expected in error
    err = capsys.readouterr().err
    assert err.endswith(noted)
    assert bool(err) == bool(noted)


def test_without_a_terminal_a_form_is_named_or_not_picked(run: Run) -> None:
    with reading([*opened(), ready(), CANCEL_PLAN]) as host:
        error = run("get", NAME, "-a", "--host", host)
    assert isinstance(error, str)
    assert "; name a quantization (`maker/talker@Q4_K_M`), or omit -a; choices: Talker (1.00 kB, Q4_K_M," in error


def test_the_first_form_is_the_default_if_the_server_recommends_one_that_is_not_there(
    run: Run, typed: Callable[..., list[str]]
) -> None:
    prompts = typed("", "n")
    plan = planned(selected=None)
    plan["nodes"][1]["recommendedDownloadOptionIndex"] = 2
    with reading([*opened(), ready(**plan), chosen(0), updated(version=1), CANCEL_PLAN]) as host:
        assert run("get", NAME, "-a", "--host", host) == 1
    assert prompts == ["Download [1]: ", ASKED]


def test_a_plan_that_changes_while_a_person_decides_is_shown_again(
    run: Run, capsys: Capture, typed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = typed("y", "n")
    lines = [*opened(), ready(), Line("client", SEARCH), updated(selected=1), Line("server", FOUND), CANCEL_PLAN]
    with reading(lines) as host, Client(host) as client:
        monkeypatch.setattr("lmstudio_integrations.client.api.sync.Client", lambda *_: contextlib.nullcontext(client))
        type_line = _questions.read_line

        def read_line(prompt: str) -> str:
            if not prompts:
                client.repository.search_models(NAME)  # its response comes after the change
            return type_line(prompt)

        monkeypatch.setattr(_questions, "read_line", read_line)
        assert run("get", NAME, "--host", host) == 1
    assert prompts == [ASKED, ASKED]
    assert capsys.readouterr().err.splitlines() == [*PLAN, "The server has changed the plan.", *LARGER]


def test_an_artifact_without_models_is_not_said_to_be_loadable(run: Run, capsys: Capture) -> None:
    with reading([*opened(), ready(nodes=[ARTIFACT]), *DOWNLOAD]) as host:
        assert run("get", NAME, "--host", host) == 0
    assert capsys.readouterr() == (f"{NAME}\n", "Downloading maker/talker (1.00 kB).\nDownloaded.\n")


# Choices ------------------------------------------------------------------------------------------------------------


def available(name: str, *, exact: bool | None = None) -> AvailableModel:
    return AvailableModel(SearchResultInfo(name=name, identifier={}, exact=exact), cast("Any", None))


def form(quantization: str, *, recommended: bool | None = None, fit: str = "fullGPUOffload") -> DownloadOption:
    info = DownloadOptionInfo(
        name=f"Model {quantization}",
        size_bytes=1_000_000_000,
        fit_estimation=fit,
        download_identifier=quantization,
        quantization=quantization,
        recommended=recommended,
    )
    return DownloadOption(info, cast("Any", None))


FORMS = [form("Q2_K"), form("Q4_K_M", recommended=True), form("Q8_0", fit="willNotFit")]


def test_an_exact_name_is_better_than_the_first_one() -> None:
    found = [available("first"), available("second", exact=True)]
    assert choose_model(found, yes=False, every=False) is found[1]
    assert choose_model(found, yes=True, every=False) is found[1]


@pytest.mark.parametrize("spelled", ["Q8_0", "q8_0"])
def test_a_quantization_is_found_in_any_case(spelled: str) -> None:
    assert choose_form(NAME, FORMS, spelled, yes=False, picks=True) is FORMS[2]


def test_the_recommended_form_is_downloaded_without_a_question() -> None:
    assert choose_form(NAME, FORMS, "", yes=True, picks=True) is FORMS[1]
    assert choose_form(NAME, FORMS, "", yes=False, picks=False) is FORMS[1]


def test_without_a_recommendation_the_first_form_is_downloaded() -> None:
    assert choose_form(NAME, [FORMS[2], FORMS[0]], "", yes=True, picks=False) is FORMS[2]


def test_the_return_key_picks_the_recommended_form(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(_questions, "has_terminal", lambda: True)
    monkeypatch.setattr(_questions, "read_line", lambda _prompt: "")
    assert choose_form(NAME, FORMS, "", yes=False, picks=True) is FORMS[1]
    assert capsys.readouterr().err.splitlines() == [
        f"{number:3}. {describe_form(each)}" for number, each in enumerate(FORMS, 1)
    ]


def test_a_form_is_described_with_its_size_and_whether_it_fits() -> None:
    assert describe_form(FORMS[2]) == "Model Q8_0 (1.00 GB, Q8_0, does not fit)"


def test_without_a_terminal_the_remedy_names_the_recommended_quantization() -> None:
    with pytest.raises(LMStudioValueError, match=r"name a quantization \(`maker/talker@Q4_K_M`\), or omit -a; "):
        choose_form(NAME, FORMS, "", yes=False, picks=True)
    with pytest.raises(LMStudioValueError, match="cannot ask; omit -a; choices: "):
        choose_form(NAME, [form(""), form("Q8_0")], "", yes=False, picks=True)


def test_a_quantization_that_no_form_has_is_an_error() -> None:
    with pytest.raises(LMStudioValueError, match="no quantization 'q9'; there are Q2_K, Q4_K_M, Q8_0"):
        choose_form(NAME, FORMS, "q9", yes=False, picks=False)


def test_a_model_without_forms_is_an_error() -> None:
    with pytest.raises(LMStudioValueError, match="no form that the server can run"):
        choose_form(NAME, [], "", yes=True, picks=False)
