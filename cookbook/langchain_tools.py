"""Tools by hand: the model asks for calls, the program runs them, and the model answers from the results.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_TOOL_MODEL` names another model.
Take one that was trained for tool use.
"""

import os

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_TOOL_MODEL", "qwen/qwen3-4b")


@tool
def pier(destination: str) -> str:
    """Tell from which pier the ferries to a destination leave."""
    return f"Ferries to the {destination} leave from pier 7."


def main() -> None:
    """Ask for a ferry."""
    model = ChatLMStudio(model=MODEL, temperature=0).bind_tools([pier])
    messages: list[BaseMessage] = [HumanMessage("From which pier does the ferry to the island leave?")]

    request = model.invoke(messages)
    messages.append(request)
    assert [call["name"] for call in request.tool_calls] == ["pier"]
    for call in request.tool_calls:
        result = pier.invoke(call)
        print(f"{call['name']}({call['args']}) = {result.content}")
        messages.append(result)

    answer = model.invoke(messages)
    print(answer.text)
    assert "7" in answer.text


if __name__ == "__main__":
    main()
