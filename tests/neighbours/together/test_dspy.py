"""DSPy answers and calls tools on LM Studio, by an engine around ours and by its OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "dspy",
    group="others",
    job="`ChainOfThought` and `ReAct` on an engine of ten lines around `ChatLMStudio`, and on `dspy.LM`",
    settings="`dspy.LM('openai/KEY', api_base='http://HOST:1234/v1', api_key='lm-studio')`, or the engine: our object "
    "itself is rejected. `dspy.LM('lm_studio/KEY')` without `api_base` goes to OpenAI, see litellm",
    environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    weekly=True,
)

ANSWER = "[[ ## reasoning ## ]]\nFerries.\n\n[[ ## answer ## ]]\nPier 7\n\n[[ ## completed ## ]]"


class Engine:
    """Runs DSPy's requests on a chat model of LangChain."""

    def __init__(self, chat: Any) -> None:
        self.chat = chat

    def complete(self, request: Any) -> Any:
        from dspy.lm15 import Message, Response, TextPart, Usage

        messages = [(each.role, each.text) for each in request.messages]
        settings = {"temperature": request.config.temperature, "max_tokens": request.config.max_tokens}
        response = self.chat.invoke([("system", request.system or ""), *messages], **settings)
        used = response.usage_metadata
        usage = Usage(input_tokens=used["input_tokens"], output_tokens=used["output_tokens"])
        message = Message.assistant([TextPart(response.text)])
        reason = response.response_metadata["normalized_finish_reason"]
        return Response(id=None, model=request.model, message=message, finish_reason=reason, usage=usage)


def test_it_works_by_an_engine_around_ours(serve: Serve) -> None:
    import dspy

    from lmstudio_integrations.langchain import ChatLMStudio

    act = "\n".join(
        f"[[ ## {name} ## ]]\n{value}\n"
        for name, value in {"next_thought": "Look.", "next_tool_name": "price", "next_tool_args": '{"pier": 7}'}.items()
    )
    server = serve(
        {"when": {"last": "euros"}, "then": ANSWER},
        {"when": {"last": "next_tool_name", "times": 1}, "then": act},
        {"then": ANSWER},
    )

    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    language_model = dspy.LM(CHAT, engine=Engine(ChatLMStudio(model=CHAT)), cache=False, max_tokens=300)
    with dspy.context(lm=language_model):
        assert dspy.ChainOfThought("question -> answer")(question="Where do ferries leave?").answer == "Pier 7"
        (asked,) = server.predictions
        assert [each["role"] for each in asked.messages] == ["system", "user"]
        assert asked.config["maxTokens"] == 300
        acted = dspy.ReAct("question -> answer", tools=[price], max_iters=1)(question="What is the price?")
    assert (acted.answer, acted.trajectory["observation_0"]) == ("Pier 7", "21 euros")
    with pytest.raises(ValueError, match="model must be a non-empty string"):
        dspy.LM(ChatLMStudio(model=CHAT))("Where do ferries leave?")
    with dspy.context(lm=ChatLMStudio(model=CHAT)), pytest.raises(ValueError, match="LM must be a dspy"):
        dspy.Predict("question -> answer")(question="Where do ferries leave?")


async def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    import dspy

    collector.answer = replies(ANSWER)
    address = f"{collector.address}/v1"
    with dspy.context(lm=dspy.LM("openai/qwen/qwen3-4b", api_base=address, api_key="lm-studio", cache=False)):
        question = dspy.ChainOfThought("question -> answer")
        assert question(question="Where do ferries leave?").answer == "Pier 7"
        assert (await question.acall(question="Where do ferries leave?")).answer == "Pier 7"
    assert [each.path for each in collector.requests] == ["/v1/chat/completions"] * 2
    assert {each.json["model"] for each in collector.requests} == {"qwen/qwen3-4b"}
