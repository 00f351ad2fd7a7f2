"""The mistakes with several hosts. Imported for its entries of `MISTAKES`."""

from typing import Any

from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.emulator import Emulator
from tests.messages.mistakes import KEYS, TOKEN, Case, closed_port, mistake, models
from tests.messages.surfaces import ADAPTED, NATIVE

SEVERAL: Any = ["studio-a:1234", "studio-b:1234"]


@mistake("one-host", NATIVE)
def _list_for_a_client(case: Case) -> Any:
    return case(SEVERAL)


@mistake("one-host", NATIVE)
def _variable_for_a_client(case: Case) -> Any:
    case.monkeypatch.setenv(HOST_VARIABLE, ",".join(SEVERAL))
    return case(None)


@mistake("hosts-without-model", ADAPTED)
def _no_model(case: Case) -> Any:
    return case(SEVERAL, model=None)


@mistake("hosts-invalid", ADAPTED)
def _named_twice(case: Case) -> Any:
    hosts: Any = ["localhost:1234", "http://localhost:1234/v1"]
    return case(hosts)


@mistake("hosts-invalid", ADAPTED)
def _empty_list(case: Case) -> Any:
    hosts: Any = []
    return case(hosts)


@mistake("hosts-invalid", ADAPTED)
def _token_of_another_host(case: Case) -> Any:
    return case(SEVERAL, api_token={"studio-c:1234": TOKEN})


@mistake("hosts-failed", ADAPTED)
def _all_hosts_failed(case: Case) -> Any:
    with closed_port() as first, closed_port() as second:
        hosts: Any = [first, second]
        return case(hosts)


@mistake("hosts-differ", ADAPTED)
def _loaded_differently(case: Case) -> Any:
    key = KEYS[case.surface.kind]
    smaller = [entry.model_copy(update={"context_length": 16}) for entry in models()]
    with Emulator(models(), load=[key]) as first, Emulator(smaller, load=[key]) as second:
        hosts: Any = [first.address, second.address]
        adapter: Any = case.surface.adapter
        with adapter(model=key, host=hosts) as known:
            known.hosts()  # else the call starts when one of them has responded
            return case(hosts)
