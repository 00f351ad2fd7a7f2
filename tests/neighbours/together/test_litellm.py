"""LiteLLM calls LM Studio by its own provider, which needs the address, and by a class around ours."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "litellm",
    group="others",
    job="a chat by the provider `lm_studio`, and by a `CustomLLM` around `ChatLMStudio`",
    settings="`completion('lm_studio/KEY', api_base='http://HOST:1234/v1')`, or `LM_STUDIO_API_BASE`: without an "
    "address, `lm_studio/…` sends the prompt to OpenAI",
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
)

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where do ferries leave?"}]


def test_its_own_provider_calls_the_openai_compatible_address(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litellm import completion

    collector.answer = replies("At pier 7.")
    response: Any = completion("lm_studio/qwen/qwen3-4b", MESSAGES, api_base=f"{collector.address}/v1")
    assert response.choices[0].message.content == "At pier 7."
    monkeypatch.setenv("LM_STUDIO_API_BASE", f"{collector.address}/v1")
    response = completion("lm_studio/qwen/qwen3-4b", MESSAGES)
    assert response.choices[0].message.content == "At pier 7."
    assert [each.path for each in collector.requests] == ["/v1/chat/completions"] * 2
    assert [each.json for each in collector.requests] == [{"model": "qwen/qwen3-4b", "messages": MESSAGES}] * 2


def test_its_own_provider_calls_openai_without_an_address(outward: list[str]) -> None:
    from litellm import InternalServerError, completion

    with pytest.raises(InternalServerError, match="Connection error"):
        completion("lm_studio/qwen/qwen3-4b", MESSAGES, max_retries=0)
    assert set(outward) == {"socket.getaddrinfo api.openai.com"}
    outward.clear()


async def test_a_class_around_ours_calls_the_native_api(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    import litellm
    from langchain_core.messages import convert_to_messages

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve({"then": "At pier 7."})

    class OnLMStudio(litellm.CustomLLM):
        def completion(self, model: str, messages: Any, *_: Any, optional_params: Any, **__: Any) -> Any:
            response = ChatLMStudio(model=model, **optional_params).invoke(convert_to_messages(messages))
            message = {"role": "assistant", "content": response.text}
            return litellm.ModelResponse(model=model, choices=[{"message": message}])

        async def acompletion(self, *arguments: Any, **named: Any) -> Any:
            return self.completion(*arguments, **named)

    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "lmstudio", "custom_handler": OnLMStudio()}])
    response: Any = litellm.completion(f"lmstudio/{CHAT}", MESSAGES, max_tokens=20)
    assert response.choices[0].message.content == "At pier 7."
    response = await litellm.acompletion(f"lmstudio/{CHAT}", MESSAGES)
    assert response.choices[0].message.content == "At pier 7."
    assert [each.messages for each in server.predictions] == [MESSAGES] * 2
    assert server.predictions[0].config["maxTokens"] == 20
