"""Features of the official SDK under their own names. The conformance tests compare the whole interface with it."""

import inspect
from typing import Any

import pytest
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations.client import _official
from lmstudio_integrations.emulator import Emulator


def test_every_name_for_a_type_is_public() -> None:
    assert set(_official.__all__) <= set(lms.__all__)
    assert lms.BaseModel is BaseModel
    assert lms.AssistantResponse is lms.AssistantMessage


async def test_a_loaded_model_is_found_by_what_it_is(client: Any, server: Emulator) -> None:
    await client.llm.model("chatty")
    (info,) = server.loaded()
    instance = {"type": "instanceReference", "instanceReference": info.instance_reference}
    for reference in ("chatty", {"vision": False}, lms.ModelQuery(identifier="chatty"), instance):
        assert (await client.llm.get_model_info(reference)).identifier == "chatty"
    with pytest.raises(lms.LMStudioModelNotFoundError):
        await client.llm.get_model_info({"vision": True})
    for senseless in (5, {"type": "guess"}, "a\nb"):
        with pytest.raises(lms.LMStudioValueError, match="model"):
            await client.llm.get_model_info(senseless)


async def test_downloaded_models_have_classes_of_their_own(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        kinds = {type(model) for model in client.list_downloaded_models()}
        assert kinds == {lms.DownloadedLlm, lms.DownloadedEmbeddingModel}
    async with lms.AsyncClient(server.address) as client:
        theirs = {type(model) for model in await client.list_downloaded_models()}
        assert theirs == {lms.AsyncDownloadedLlm, lms.AsyncDownloadedEmbeddingModel}


def test_entries_of_any_role_and_single_tool_results_go_into_a_chat() -> None:
    chat = lms.Chat()
    chat.add_entry("user", "Hi")
    chat.add_entry("assistant", [lms.TextData(text="Wait.")])
    chat.add_tool_result({"content": "42", "toolCallId": "1"})
    chat.add_tool_result(lms.ToolCallResultData(content="43", tool_call_id="2"))
    assert [message.role for message in chat.messages] == ["user", "assistant", "tool"]
    assert len(chat.messages[-1].content) == 2
    with pytest.raises(lms.LMStudioValueError, match="role"):
        chat.add_entry("stranger", "Hi")


def test_a_parameter_of_a_tool_may_have_its_default_beside_its_type() -> None:
    def power(base: int, exponent: int) -> int:
        return int(base**exponent)

    parameters = {"base": int, "exponent": {"type": int, "default": 2}}
    tool = lms.ToolFunctionDef(name="power", description="Powers", parameters=parameters, implementation=power)
    assert tool.to_tool().function.parameters["required"] == ["base"]  # type: ignore[index]  # it has parameters
    assert tool.check({"base": "3", "exponent": 3}) == {"base": 3, "exponent": 3}


async def test_the_results_of_the_tool_loop_know_their_round(client: Any) -> None:
    async def weather(city: str) -> str:
        """Report the weather."""
        return f"sunny in {city}"

    results: list[lms.PredictionRoundResult] = []
    model = await client.llm.model("chatty")
    await model.act("weather", [weather], on_prediction_completed=results.append)
    assert [result.round_index for result in results] == [0, 1]
    assert results[0].tool_call_requests[0].name == "weather"
    assert results[1].stats.stop_reason == "eosFound"


async def test_the_bos_token_of_a_prompt_may_be_omitted(client: Any) -> None:
    model = await client.llm.model("chatty")
    whole = await model.apply_prompt_template("Hi")
    assert await model.apply_prompt_template("Hi", {"omitBosToken": True}) in whole
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'omitBosToken'"):
        await model.apply_prompt_template("Hi", {"omitBosTokens": True})
    with pytest.raises(lms.LMStudioValueError, match="opts must be a dict of omit_bos_token, omit_eos_token; got 5"):
        await model.apply_prompt_template("Hi", 5)


def test_the_client_prepares_images_itself() -> None:
    assert list(inspect.signature(lms.Client.prepare_image).parameters) == ["self", "src", "name"]
