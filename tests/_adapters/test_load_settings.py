"""Every load setting reaches the server through `load_config` of every adapter, with `raw` for those without a name."""

import re
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioUnsupportedError, LMStudioValueError
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter
from tests.support.served import served
from tests.types.test_config import EMBEDDING_LOAD_SETTINGS, LLM_LOAD_SETTINGS, Table

MODEL = "model"
ALONE = {"speculativeDraftMtp"}
"""Settings that others exclude."""

Value = dict[str, Any]

server = served([ModelEntry(key=MODEL), ModelEntry(key="vectors", kind="embedding")])


every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
every_language_model = pytest.mark.parametrize("adapter", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)


def load(server: Emulator, adapter: Adapter, given: Value, **fields: Any) -> Value:
    """Make a call that loads a model; return the settings that the server received."""
    name = "vectors" if adapter.kind == "embedding" else MODEL
    with adapter.make(
        model=name, host=server.address, load_policy="new_instance", unload_on_close=True, **fields
    ) as model:
        adapter.call(model, "Hello", **given)
    return server.loads[-1].config


@every_adapter
def test_every_load_setting_reaches_the_server(server: Emulator, adapter: Adapter) -> None:
    table: Table = EMBEDDING_LOAD_SETTINGS if adapter.kind == "embedding" else LLM_LOAD_SETTINGS
    settings = {alias: value for alias, (value, _, _) in table.items() if alias not in ALONE}
    raw = {"ext.fromTheFuture": {"a": [None]}}
    received = load(server, adapter, {}, load_config={**settings, "raw": raw})
    assert received == {**settings, "raw": raw}


@every_adapter
def test_a_setting_that_only_lm_studio_may_write_is_an_error_that_names_it(adapter: Adapter) -> None:
    key = f"{adapter.kind if adapter.kind == 'embedding' else 'llm'}.load.fromTheFuture"
    rules = ({"when": {"load": True}, "then": [{"error": f'The setting "{key}" requires a privileged client.'}]},)
    kind: Any = "embedding" if adapter.kind == "embedding" else "llm"
    with (
        Emulator([ModelEntry(key=MODEL, kind=kind, rules=rules)]) as server,
        adapter.make(model=MODEL, host=server.address, load_config={"raw": {key: 1}}) as model,
        pytest.raises(LMStudioUnsupportedError, match=f"only its own applications set {re.escape(key)}: leave it out"),
    ):
        adapter.call(model, "Hello")


@every_language_model
def test_load_settings_are_merged_by_key_and_raw_ones_rank_below_the_named(server: Emulator, adapter: Adapter) -> None:
    field = {"seed": 5, "tryMmap": False, "raw": {"ext.a": 1, "ext.b": 1}}
    call = {"try_mmap": True, "raw": {"ext.b": 2, "llm.load.seed": {"checked": True, "value": 6}}}
    received = load(server, adapter, {"load_config": call}, load_config=field)
    assert received == {"seed": 5, "tryMmap": True, "raw": {"ext.a": 1, "ext.b": 2}}


@every_language_model
@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {"context_length": 2048, "load_config": {"autoFit": True}}),
        ({"load_config": {"autoFit": True}}, {"load_config": {"gpu": {"ratio": 1}}}),
        ({"context_length": 2048}, {"load_config": {"autoFit": True}}),
    ],
)
def test_settings_that_exclude_each_other_are_rejected_wherever_they_come_from(
    server: Emulator, adapter: Adapter, given: Value, fields: Value
) -> None:
    with pytest.raises(LMStudioValueError, match=r"auto_fit=True excludes (context_length=2048|gpu\.ratio=1)"):
        load(server, adapter, given, **fields)


@every_adapter
def test_a_raw_load_setting_that_is_not_json_is_rejected(server: Emulator, adapter: Adapter) -> None:
    with pytest.raises(LMStudioValueError, match="cannot be written as JSON"):
        load(server, adapter, {}, load_config={"raw": {"ext.a": object()}})
