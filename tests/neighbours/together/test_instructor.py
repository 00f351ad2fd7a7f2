"""Instructor returns an object of a class, from LM Studio by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector

pytestmark = pytest.mark.neighbour(
    "instructor",
    group="others",
    job="`create` with a `response_model`, which asks again for an answer that does not fit",
    settings="`instructor.from_openai(OpenAI(base_url='http://HOST:1234/v1', api_key='lm-studio'), "
    "mode=instructor.Mode.JSON_SCHEMA)`: LM Studio has no JSON mode; our object itself is rejected",
    weekly=True,
)


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    import instructor
    from instructor.core.exceptions import ClientError
    from openai import OpenAI
    from pydantic import BaseModel, Field

    from lmstudio_integrations.langchain import ChatLMStudio

    class Ferry(BaseModel):
        pier: int = Field(ge=1)

    collector.answer = replies('{"pier": 0}', '{"pier": 7}')
    client = instructor.from_openai(
        OpenAI(base_url=f"{collector.address}/v1", api_key="lm-studio"), mode=instructor.Mode.JSON_SCHEMA
    )
    messages: Any = [{"role": "user", "content": "Where do ferries leave?"}]
    ferry = client.chat.completions.create(
        model="qwen/qwen3-4b", response_model=Ferry, messages=messages, max_retries=2
    )
    assert ferry.pier == 7
    asked, again = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert asked.json["response_format"]["json_schema"]["schema"]["properties"]["pier"]["minimum"] == 1
    assert len(again.json["messages"]) > len(asked.json["messages"])
    ours: Any = ChatLMStudio(model=CHAT)
    with pytest.raises(ClientError, match="Got: ChatLMStudio"):
        instructor.from_openai(ours)
