"""The layered form in which settings are sent."""

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.protocol.kv_config import KvConfig, KvConfigStack, stack_of


@pytest.mark.parametrize("settings", [None, lms.LlmPredictionConfig()])
def test_the_layer_of_a_client_is_sent_even_if_it_is_empty(settings: lms.LlmPredictionConfig | None) -> None:
    assert stack_of(settings) == {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}


def test_a_later_layer_overrides_an_earlier_one_key_by_key() -> None:
    stack = KvConfigStack.from_dict(
        {
            "layers": [
                {
                    "layerName": "instance",
                    "config": {"fields": [{"key": "a", "value": 1}, {"key": "b", "value": 1}]},
                },
                {"layerName": "apiOverride", "config": {"fields": [{"key": "b", "value": 2}]}},
            ]
        }
    )
    assert stack.collapse() == {"a": 1, "b": 2}


def test_the_last_of_equal_keys_counts() -> None:
    config = KvConfig.from_dict({"fields": [{"key": "a", "value": 1}, {"key": "a", "value": 2}, {"key": "b"}]})
    assert config.as_mapping() == {"a": 2, "b": None}
