"""Tokens and the profile: from the server, offline if the user has set the context length."""

from typing import Any

import pytest
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.messages.content import create_file_block

from lmstudio_integrations.client.predictions.language_model import LanguageModel
from lmstudio_integrations.errors import LMStudioPromptTemplateError
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.langchain._messages import PER_IMAGE, PER_MESSAGE
from tests.langchain.conftest import CHAT, OTHER, PLAIN, Server
from tests.langchain.test_messages import BASE64
from tests.langchain.test_tools import weather


def test_tokens_are_the_models_own(server: Server) -> None:
    llm = server.chat()
    assert llm.get_num_tokens("one two three") == 3
    assert len(llm.get_token_ids("one two three")) == 3
    assert server.llm().get_num_tokens("one two") == 2


def test_a_users_own_tokenizer_ranks_above(server: Server) -> None:
    llm = server.chat(custom_get_token_ids=lambda text: (1 for _ in text))
    assert llm.get_num_tokens("abcd") == 4
    assert llm.get_token_ids("ab") == [1, 1]
    assert not server.loaded()


def test_a_conversation_is_counted_with_its_template_and_tools(server: Server) -> None:
    llm = server.chat()
    short = llm.get_num_tokens_from_messages([HumanMessage("one two")])
    longer = llm.get_num_tokens_from_messages([SystemMessage("be brief"), HumanMessage("one two")])
    assert 2 <= short < longer
    assert llm.get_num_tokens_from_messages([HumanMessage("one two")], tools=[weather]) > short
    assert llm.get_num_tokens_from_messages([]) == 0


def test_an_image_counts_by_estimate(server: Server) -> None:
    llm = server.chat()
    block = {"type": "image", "base64": BASE64}
    plain = llm.get_num_tokens_from_messages([HumanMessage("what?")])
    assert llm.get_num_tokens_from_messages([HumanMessage(["what?", block])]) == plain + PER_IMAGE


def test_what_the_template_rejects_is_counted_text_by_text(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise LMStudioPromptTemplateError("roles must alternate")

    monkeypatch.setattr(LanguageModel, "apply_prompt_template", fail)
    call = AIMessage("I look.", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    parts: list[Any] = [call, ToolMessage("it rains", tool_call_id="1")]
    assert server.chat().get_num_tokens_from_messages(parts) == 2 + 2 + 2 + 2 * PER_MESSAGE


def test_a_file_that_a_tool_returned_is_counted_and_trimmed(server: Server) -> None:
    llm = server.chat()
    call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    files: list[Any] = [create_file_block(url="mcp://r/1"), create_file_block(base64=BASE64, mime_type="image/x")]
    messages: list[Any] = [HumanMessage("q"), call, ToolMessage(files, tool_call_id="1"), HumanMessage("and now?")]
    assert llm.get_num_tokens_from_messages(messages) > llm.get_num_tokens_from_messages([*messages[:2], messages[3]])
    assert trim_messages(messages, max_tokens=1000, token_counter=llm) == messages
    assert llm.invoke(messages).text


# The profile ----------------------------------------------------------------------------------------------------------


def test_making_the_object_makes_no_request() -> None:
    def profile(**settings: Any) -> ModelProfile:
        return ChatLMStudio(model="m", host="127.0.0.1:1", **settings).profile

    assert "max_input_tokens" not in profile()
    assert profile()["structured_output"] is True
    assert profile()["tool_choice"] is True
    assert profile(context_length=2048)["max_input_tokens"] == 2048
    assert profile(load_config={"contextLength": 99})["max_input_tokens"] == 99
    own: Any = {"max_input_tokens": 5, "structured_output": False}
    assert profile(context_length=2048, profile=own).items() >= own.items()


async def test_the_profile_comes_when_requested_or_with_the_first_response(server: Server) -> None:
    loaded, loaded_async, used = server.chat(), server.chat(), server.chat()
    assert loaded.load().profile == loaded.profile
    assert (await loaded_async.aload()).profile == loaded.profile
    used.invoke("count")
    assert {**used.profile, "mid_conversation_system_messages": True} == loaded.profile
    assert loaded.profile["max_input_tokens"] == 4096
    assert loaded.profile["image_inputs"] is True
    assert loaded.profile["tool_calling"] is True
    assert loaded.profile["mid_conversation_system_messages"] is True


def test_the_profile_is_complete_before_the_last_chunk_because_readers_may_stop_there(server: Server) -> None:
    llm = server.chat()
    stream = llm.stream("count")
    assert any(chunk.chunk_position == "last" for chunk in stream)
    assert llm.profile["max_input_tokens"] == 4096


async def test_the_profile_can_be_requested_when_the_model_was_unloaded(server: Server) -> None:
    llm = server.chat()
    llm.load()
    server.unload(CHAT)
    assert llm.load().profile["max_input_tokens"] == 4096
    await llm.aload()
    server.unload(CHAT)
    assert (await llm.aload()).profile["max_input_tokens"] == 4096
    server.unload(CHAT)
    assert llm.get_num_tokens("one two") == 2


def test_what_the_user_set_in_the_profile_stays(server: Server) -> None:
    own: Any = {"max_input_tokens": 5, "structured_output": True}
    llm = server.chat(profile=own)
    llm.invoke("count")
    assert llm.profile["max_input_tokens"] == 5
    assert llm.profile["structured_output"] is True
    assert llm.profile["image_inputs"] is True


def test_a_copy_for_another_model_records_that_ones_profile(server: Server) -> None:
    own: Any = {"max_output_tokens": 7}
    llm = server.chat(profile=own)
    llm.invoke("count")
    other = llm.model_copy(update={"model": PLAIN})
    other.invoke("count")
    assert (other.profile["tool_calling"], other.profile["max_output_tokens"]) == (False, 7)
    other.model = CHAT
    other.invoke("count")
    assert other.profile == llm.profile
    other.profile = own
    other.model = PLAIN
    other.invoke("count")
    assert other.profile["max_output_tokens"] == 7
    assert other.profile["tool_calling"] is False


def test_the_profile_is_of_the_model_that_the_object_names(server: Server) -> None:
    llm = server.chat()
    llm.load()
    llm.model = OTHER
    assert "max_input_tokens" not in llm.profile
    llm.model, llm.profile = CHAT, {"max_output_tokens": 7}
    assert (llm.profile["max_input_tokens"], llm.profile["max_output_tokens"]) == (4096, 7)


class OfUser(ChatLMStudio):
    """A class of a user, whose fields pydantic collects anew."""

    mood: str = "calm"


def test_a_class_of_a_user_has_the_profile_too(server: Server) -> None:
    llm = OfUser(model=CHAT, host=server.address)
    assert "max_input_tokens" not in llm.profile
    assert llm == OfUser(model=CHAT, host=server.address)
    assert llm.load().profile["max_input_tokens"] == 4096
    assert OfUser.model_fields["profile"].default is None
