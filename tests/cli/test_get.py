"""`get`: which model and which form of it is downloaded, when it asks, and how it is cancelled."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from lmstudio_integrations.cli import _questions
from lmstudio_integrations.cli._get import choose_form, choose_model, describe
from lmstudio_integrations.client.api.sync import AvailableModel, Client, DownloadOption
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.models import DownloadOptionInfo, SearchResultInfo
from tests.cli.terminal import TIMEOUT, interrupt, needs_pty, on_terminal, started

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


def test_a_model_with_the_exact_name_is_downloaded_and_its_key_printed(
    server: Emulator, run: Run, capsys: Capture
) -> None:
    assert run("get", TALKER, "--host", server.address) == 0
    out, err = capsys.readouterr()
    assert out == f"{TALKER}\n"
    assert err.splitlines() == [
        f"Downloading {TALKER} (1.00 kB, gguf, fits without a GPU)",
        f"Downloaded. `lmsi load {TALKER}` loads it.",
    ]
    assert downloaded(server) == [TALKER]


def test_without_an_exact_name_and_a_terminal_nothing_is_downloaded(server: Emulator, run: Run) -> None:
    for arguments in (["vendor"], ["talk"], [], [TALKER, "--always-show-all-results"]):
        error = run("get", *arguments, "--host", server.address)
        assert isinstance(error, str)
        assert error.startswith("Error: not a terminal, so cannot ask; name one, or use --yes for 'vendor/")
    assert downloaded(server) == []


def test_the_first_match_is_downloaded_on_request(server: Emulator, run: Run) -> None:
    assert run("get", "vendor", "--yes", "--host", server.address) == 0
    assert downloaded(server) == [TALKER]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([f"{TALKER}@q9"], f"there is no quantization 'q9'; there are {TALKER}"),
        (["zzz"], "no model to download matches 'zzz'; try fewer words"),
        ([TALKER, "--mlx"], f"no model to download matches '{TALKER}'; try fewer words"),
    ],
)
def test_what_does_not_exist_is_an_error(server: Emulator, run: Run, arguments: list[str], expected: str) -> None:
    assert run("get", *arguments, "--host", server.address) == f"Error: {expected}"


def test_a_search_can_be_limited_to_a_format(server: Emulator, run: Run) -> None:
    assert run("get", TALKER, "--gguf", "-n", "3", "--host", server.address) == 0


@pytest.mark.parametrize("flag", ["--always-show-all-results", "-a"])
def test_picking_and_yes_exclude_each_other(server: Emulator, run: Run, flag: str) -> None:
    assert run("get", TALKER, "--yes", flag, "--host", server.address) == 2


@pytest.mark.slow
def test_an_interrupt_cancels_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def locate(*_: object, **__: object) -> None:
        reached.set()
        go_on.wait(TIMEOUT)

    monkeypatch.setattr("lmstudio_integrations.emulator.engines.weights.locate", locate)
    entry = ModelEntry(key="absent", weights="smollm2-135m-instruct", downloaded=False)
    with Emulator([entry]) as server:
        try:
            with started("get", "absent", "--host", server.address) as process:
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
    assert choose_model(found, "second", yes=False, every=False) is found[1]
    assert choose_model(found, "second", yes=True, every=False) is found[1]


@pytest.mark.parametrize("spelled", ["Q8_0", "q8_0"])
def test_a_quantization_is_found_in_any_case(spelled: str) -> None:
    assert choose_form(FORMS, spelled, yes=False, picks=True) is FORMS[2]


def test_the_recommended_form_is_downloaded_without_a_question() -> None:
    assert choose_form(FORMS, "", yes=True, picks=True) is FORMS[1]
    assert choose_form(FORMS, "", yes=False, picks=False) is FORMS[1]


def test_without_a_recommendation_the_first_form_is_downloaded() -> None:
    assert choose_form([FORMS[2], FORMS[0]], "", yes=True, picks=False) is FORMS[2]


def test_the_return_key_picks_the_recommended_form(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(_questions, "has_terminal", lambda: True)
    monkeypatch.setattr(_questions, "read_line", lambda _prompt: "")
    assert choose_form(FORMS, "", yes=False, picks=True) is FORMS[1]
    assert capsys.readouterr().err.splitlines() == [
        f"{number:3}. {describe(each)}" for number, each in enumerate(FORMS, 1)
    ]


def test_a_form_is_described_with_its_size_and_whether_it_fits() -> None:
    assert describe(FORMS[2]) == "Model Q8_0 (1.00 GB, Q8_0, does not fit)"


def test_a_model_without_forms_is_an_error() -> None:
    with pytest.raises(LMStudioValueError, match="no form that the server can run"):
        choose_form([], "", yes=True, picks=False)
