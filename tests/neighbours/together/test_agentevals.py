"""The run of an agent is compared with what was expected, and judged by a model."""

import json
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "agentevals",
    group="evaluation",
    job="the calls of an agent are compared with the expected ones, and judged by a model",
    weekly=True,
)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_run_is_judged(serve: Serve, asynchronous: bool) -> None:
    from agentevals.trajectory.llm import (
        TRAJECTORY_ACCURACY_PROMPT,
        create_async_trajectory_llm_as_judge,
        create_trajectory_llm_as_judge,
    )
    from agentevals.trajectory.match import create_trajectory_match_evaluator
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"structured": True}, "then": json.dumps({"reasoning": "It asked first.", "score": True})},
        {"when": {"role": "user"}, "then": [{"tool": "weather", "arguments": {"city": "Oslo"}}]},
        {"when": {"role": "tool"}, "then": "It rains."},
    )

    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"Rain in {city}."

    model = ChatLMStudio(model=CHAT)
    question: Any = {"messages": "How is the weather in Oslo?"}
    run = create_agent(model, [weather]).invoke(question)["messages"]

    def expected(city: str) -> list[dict[str, Any]]:
        call = {"function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        return [
            {"role": "user", "content": "How is the weather?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "Rain."},
            {"role": "assistant", "content": "It rains."},
        ]

    match = create_trajectory_match_evaluator(trajectory_match_mode="strict")
    scores = [match(outputs=run, reference_outputs=expected(city))["score"] for city in ("Oslo", "Rome")]
    assert scores == [True, False]
    if asynchronous:
        ajudge = create_async_trajectory_llm_as_judge(prompt=TRAJECTORY_ACCURACY_PROMPT, judge=model)
        result = await ajudge(outputs=run)
    else:
        result = create_trajectory_llm_as_judge(prompt=TRAJECTORY_ACCURACY_PROMPT, judge=model)(outputs=run)
    assert result == {"key": "trajectory_accuracy", "score": True, "comment": "It asked first.", "metadata": None}
    judged = server.predictions[-1]
    assert judged.config["structured"]["jsonSchema"]["required"] == ["reasoning", "score"]
    (message,) = judged.messages
    assert message["role"] == "user"
    assert "Rain in Oslo." in message["content"]
