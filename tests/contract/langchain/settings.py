"""Settings: those of the constructor, of a call, and of runnables around the model."""

from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField

from tests.contract.langchain.integration import Integration, check_misspelled, contract
from tests.contract.models import CHAT, CONTEXT_LENGTH, OTHER
from tests.contract.suite import NUMBERS


@contract("making an object needs no server")
def _offline(integration: Integration) -> None:
    integration.unreachable()
    assert not integration.server.prediction_count


@contract("`temperature` is sent, also above 1")
def _temperature(integration: Integration) -> None:
    for temperature in (0.25, 1.5):
        integration.chat(temperature=temperature).invoke("count")
        assert integration.server.last_request.config.temperature == temperature


@contract("a setting of a call, or of `bind`, overrides that of the constructor")
def _call_settings(integration: Integration) -> None:
    llm = integration.chat(temperature=0.25)
    llm.bind(temperature=0.5).invoke("count")
    assert integration.server.last_request.config.temperature == 0.5
    llm.invoke("count", temperature=0.75)
    assert integration.server.last_request.config.temperature == 0.75
    llm.invoke("count")
    assert integration.server.last_request.config.temperature == 0.25


@contract("`max_tokens` is sent")
def _max_tokens(integration: Integration) -> None:
    integration.chat(max_tokens=7).invoke("count")
    assert integration.server.last_request.config.max_tokens == 7


@contract("`seed` is sent")
def _seed(integration: Integration) -> None:
    integration.chat(seed=42).invoke("count")
    assert integration.server.last_request.config.seed == 42


@contract("stop strings are sent, from the constructor, from `bind` and from the call")
def _stop(integration: Integration) -> None:
    llm = integration.chat()
    sent: list[Any] = []
    for call in (integration.chat(stop=["8"]).invoke, llm.bind(stop=["8"]).invoke, lambda t: llm.invoke(t, stop=["8"])):
        assert call("count").text.strip() == "0 1 2 3 4 5 6 7"
        sent.append(integration.server.last_request.config.stop_strings)
    assert sent == [["8"]] * 3


@contract("`model` of a call overrides that of the constructor")
def _model(integration: Integration) -> None:
    llm = integration.chat()
    assert llm.invoke("count", model=OTHER).response_metadata["model_name"] == OTHER
    assert llm.invoke("count").response_metadata["model_name"] == CHAT


@contract("`configurable_fields` makes a setting configurable per call")
def _configurable(integration: Integration) -> None:
    llm = integration.chat(temperature=0.25)
    configurable = llm.configurable_fields(temperature=ConfigurableField(id="heat"))
    configurable.with_config(configurable={"heat": 0.75}).invoke("count")
    assert integration.server.last_request.config.temperature == 0.75
    configurable.invoke("count")
    assert integration.server.last_request.config.temperature == 0.25


@contract("a misspelled setting raises an error or emits a warning")
def _misspelled(integration: Integration) -> None:
    check_misspelled(integration.chat, temprature=0.5)


@contract("`init_chat_model` makes the chat model from its provider's name")
def _init_chat_model(integration: Integration) -> None:
    llm = init_chat_model(CHAT, model_provider=integration.provider, **integration.connection)
    assert type(llm) is type(integration.chat())
    assert llm.invoke("count").text == NUMBERS


@contract("`profile` contains the context length of the loaded model, at the latest after the first response")
def _profile(integration: Integration) -> None:
    llm = integration.chat()
    llm.invoke("count")
    assert (llm.profile or {}).get("max_input_tokens") == CONTEXT_LENGTH


@contract("`get_num_tokens_from_messages` counts the tokens of a conversation, without a download")
def _num_tokens(integration: Integration) -> None:
    llm = integration.chat()
    short, long = (llm.get_num_tokens_from_messages([HumanMessage("word " * count)]) for count in (1, 100))
    assert 0 < short < long - 50
