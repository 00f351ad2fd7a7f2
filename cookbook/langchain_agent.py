"""An agent: `create_agent` runs the tool calls until there is a final response.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set
`LMSTUDIO_TOOL_MODEL` to use another model that was trained for tool use.
"""

import os
from typing import Any

from langchain.agents import create_agent

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_TOOL_MODEL", "qwen/qwen3-4b")


def departure(destination: str) -> str:
    """Return the departures of the ferries to a destination."""
    return f"From the north pier to the {destination}: every hour until 18:30."


def weather(place: str) -> str:
    """Return the weather at a place."""
    return f"{place}: rain, 12 degrees."


def main() -> None:
    """Run an agent with two tools and stream its steps."""
    agent = create_agent(
        ChatLMStudio(model=MODEL, temperature=0),
        tools=[departure, weather],
        system_prompt="Look up departures and the weather. Answer in one sentence.",
    )
    text = "When does the last ferry to the island leave? Do I need an umbrella?"
    question: Any = {"messages": [("user", text)]}

    called: set[str] = set()
    response = ""
    steps: Any = agent.stream(question, stream_mode="messages")
    for token, _ in steps:
        if token.type == "tool":
            print(f"[{token.name}: {token.text}]")
            called.add(token.name)
            response = ""
        else:
            response += token.text
    print(response)
    assert called == {"departure", "weather"}
    assert ":30" in response


if __name__ == "__main__":
    main()
