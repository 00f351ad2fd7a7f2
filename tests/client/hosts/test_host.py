"""What is remembered of a host that fails, without a host."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from lmstudio_integrations.client.hosts import host as host_module
from lmstudio_integrations.client.hosts.host import HostRecord
from lmstudio_integrations.errors import LMStudioTimeoutError
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint

ERROR = LMStudioTimeoutError("It does not respond")
DOWNLOADED = host_module._ProbeResult(None, None, downloaded=True)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only if a test says so."""
    time = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def absences(record: HostRecord, now: list[float]) -> Iterator[float]:
    """Fail as soon as the host is tried again; yield for how long it is left out."""
    while True:
        record.record_failure(ERROR)
        yield record.retry_at - now[0]
        now[0] = record.retry_at
        record.record_probe(DOWNLOADED)


def test_a_host_is_avoided_for_longer_and_longer_even_if_it_responds_to_surveys(now: list[float]) -> None:
    record = HostRecord()
    assert list(itertools.islice(absences(record, now), 6)) == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    record.record_success()
    assert record.error is None
    assert next(absences(record, now)) == 5.0


def test_a_host_may_be_away_for_years(now: list[float]) -> None:
    assert all(absence <= 60.0 for absence in itertools.islice(absences(HostRecord(), now), 2000))


def test_calls_that_fail_together_count_once(now: list[float]) -> None:
    record = HostRecord()
    for _ in range(4):
        record.record_failure(ERROR)
    assert record.retry_at - now[0] == 5.0


def test_the_cache_of_a_host_that_fails_or_loads_again_is_forgotten() -> None:
    def found(reference: str | None) -> host_module._ProbeResult:
        info = None if reference is None else {"instanceReference": reference}
        return host_module._ProbeResult(info, None, downloaded=True)

    record, fingerprint = HostRecord(), PromptFingerprint((0, 1))
    changes: list[tuple[Callable[[], None], bool]] = [
        (lambda: record.record_probe(found("a")), True),
        (lambda: record.record_probe(found("a")), True),
        (lambda: record.record_probe(found("b")), False),
        (lambda: record.record_probe(found(None)), False),
        (lambda: record.record_failure(ERROR), False),
        (lambda: record.record_load_failure(ERROR), False),
    ]
    for change, remains in changes:
        record.prompt_index.record_request(fingerprint)
        change()
        assert bool(record.prompt_index.active()) is remains


def test_who_sees_that_a_host_has_the_model_sees_how_many_calls_it_runs() -> None:
    seen: list[tuple[bool, int | None]] = []

    class Watched(HostRecord):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            seen.append((getattr(self, "loaded", False), getattr(self, "parallel", None)))

    record = Watched()
    record.record_probe(host_module._ProbeResult({}, 1, downloaded=True))
    record.record_probe(DOWNLOADED)
    assert (True, 1) in seen
    assert (True, None) not in seen
