"""An agent: `create_agent` runs the tools that the model asks for until it has an answer.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_TOOL_MODEL` names another model.
Take one that was trained for tool use.
"""

import os
from typing import Any

from langchain.agents import create_agent

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_TOOL_MODEL", "qwen/qwen3-4b")


def departure(destination: str) -> str:
    """Tell when the ferries to a destination leave."""
    return f"From the north pier to the {destination}: every hour until 18:30."


def weather(place: str) -> str:
    """Tell the weather at a place."""
    return f"{place}: rain, 12 degrees."


def main() -> None:
    """Let the agent look two things up, and watch it."""
    agent = create_agent(
        ChatLMStudio(model=MODEL, temperature=0),
        tools=[departure, weather],
        system_prompt="You help travellers. Look up departures and the weather before you answer, in one sentence.",
    )
    question: Any = {"messages": [("user", "When does the last ferry to the island leave, and do I need an umbrella?")]}

    called: set[str] = set()
    answer = ""
    steps: Any = agent.stream(question, stream_mode="messages")
    for token, _ in steps:
        if token.type == "tool":
            print(f"[{token.name}: {token.text}]")
            called.add(token.name)
            answer = ""
        else:
            answer += token.text
    print(answer)
    assert called == {"departure", "weather"}
    assert ":30" in answer


if __name__ == "__main__":
    main()
