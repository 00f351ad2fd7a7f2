"""An agent with tools: LlamaIndex's `FunctionAgent` looks something up and answers.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model. Take
one that was trained for tool use. The first turn is made to call the tool, so that small models do it, too.
"""

import asyncio
import os

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

from lmstudio_integrations.llama_index import LMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")

DEPARTURES = {"island": "every hour, from the north pier", "town": "at nine and at five, from the old harbour"}


def departures(destination: str) -> str:
    """Tell when and from where the ferries to a destination leave."""
    return DEPARTURES.get(destination.lower(), f"There is no ferry to {destination!r}; there are {list(DEPARTURES)}.")


async def main() -> None:
    """Ask for a ferry."""
    llm = await LMStudio(model=MODEL, temperature=0, max_tokens=200).aload()
    agent = FunctionAgent(
        tools=[departures],
        llm=llm,
        system_prompt="You answer questions about ferries in one sentence.",
        initial_tool_choice="departures",
    )

    handler = agent.run("When does the ferry to the island leave?")
    results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    answer = await handler

    for result in results:
        print(f"{result.tool_name}({result.tool_kwargs}) = {result.tool_output.content}")
    print(answer)
    assert [result.tool_name for result in results][:1] == ["departures"]
    assert all(isinstance(result.tool_kwargs["destination"], str) for result in results)


if __name__ == "__main__":
    asyncio.run(main())
