"""The model decides on a step in the browser: the package's prompt goes out, and its actions come back."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "browser-use",
    group="applications",
    job="decides on the next actions in a page, by the package's own prompt and schema; no browser was opened",
    settings="it takes no model of LangChain: a class around `ChatLMStudio` as in the program; its prompt alone "
    "has 3,700 words: `context_length=16384`",
    environment={"ANONYMIZED_TELEMETRY": "false", "BROWSER_USE_CLOUD_SYNC": "false"},
    weekly=True,
)

STEP = """{
    "thinking": "The page has a form.", "evaluation_previous_goal": "Success", "memory": "form found",
    "next_goal": "Ask for the ferry.",
    "action": [{"input": {"index": 3, "text": "ferry"}}, {"click": {"index": 4}}]
}"""


async def test_a_step(serve: Serve) -> None:
    from browser_use import Tools
    from browser_use.agent.prompts import SystemPrompt
    from browser_use.agent.views import AgentOutput
    from browser_use.llm.messages import UserMessage
    from browser_use.llm.views import ChatInvokeCompletion, ChatInvokeUsage

    from lmstudio_integrations.langchain import ChatLMStudio

    class ChatBrowserUseLMStudio:
        """What `Agent(llm=…)` of browser-use takes, around `ChatLMStudio`."""

        provider = "lmstudio"

        def __init__(self, **settings: Any) -> None:
            self._chat = ChatLMStudio(**settings)
            self.model = self.name = self.model_name = settings["model"]

        async def ainvoke(self, messages: list[Any], output_format: Any = None, **_: Any) -> ChatInvokeCompletion[Any]:
            sent = [each.model_dump(include={"role", "content"}) for each in messages]
            if output_format is None:
                raw = await self._chat.ainvoke(sent)
                completion = raw.text
            else:
                result = await self._chat.with_structured_output(output_format, include_raw=True).ainvoke(sent)
                if result["parsing_error"]:
                    raise result["parsing_error"]
                raw, completion = result["raw"], result["parsed"]
            counts = raw.usage_metadata
            usage = ChatInvokeUsage(
                prompt_tokens=counts["input_tokens"],
                prompt_cached_tokens=counts.get("input_token_details", {}).get("cache_read"),
                prompt_cache_creation_tokens=None,
                prompt_image_tokens=None,
                completion_tokens=counts["output_tokens"],
                total_tokens=counts["total_tokens"],
            )
            return ChatInvokeCompletion(completion=completion, usage=usage)

    server = serve({"when": {"structured": True}, "then": [{"text": STEP}]})
    model = ChatBrowserUseLMStudio(model=CHAT, context_length=16384)
    wanted = AgentOutput.type_with_custom_actions(Tools().registry.create_action_model())
    messages = [SystemPrompt(model_name=model.model).system_message, UserMessage(content="Find the ferry. [3]<input/>")]
    step = await model.ainvoke(messages, wanted)
    assert [action.model_dump(exclude_unset=True) for action in step.completion.action] == [
        {"input": {"index": 3, "text": "ferry"}},
        {"click": {"index": 4}},
    ]
    assert step.completion.current_state.next_goal == "Ask for the ferry."
    (asked,) = server.predictions
    assert [each["role"] for each in asked.messages] == ["system", "user"]
    schema = asked.config["structured"]["jsonSchema"]
    assert {"memory", "next_goal", "action"} <= set(schema["properties"])
    assert [load.config["contextLength"] for load in server.loads] == [16384]
    assert step.usage is not None
    assert step.usage.prompt_tokens == asked.stats["promptTokensCount"] == 3744
