"""A tool loop without an agent: run the tool calls, and send the results back.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set
`LMSTUDIO_TOOL_MODEL` to use another model that was trained for tool use.
"""

import os

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_TOOL_MODEL", "qwen/qwen3-4b")


@tool
def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"Ferries to the {destination} leave from pier 7."


def main() -> None:
    """Answer a question with one tool call."""
    model = ChatLMStudio(model=MODEL, temperature=0).bind_tools([pier])
    messages: list[BaseMessage] = [
        HumanMessage("From which pier does the ferry to the island leave?")
    ]

    request = model.invoke(messages)
    messages.append(request)
    assert [call["name"] for call in request.tool_calls] == ["pier"]
    for call in request.tool_calls:
        result = pier.invoke(call)
        print(f"{call['name']}({call['args']}) = {result.content}")
        messages.append(result)

    response = model.invoke(messages)
    print(response.text)
    assert "7" in response.text


if __name__ == "__main__":
    main()
