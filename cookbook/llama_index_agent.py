"""Run an agent with tools in LlamaIndex.

`FunctionAgent` calls a tool and answers from its result. The first turn forces the
tool call, so this also works with models that were not trained for tool use.
"""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

from lmstudio_integrations.llama_index import LMStudio

DEPARTURES = {
    "island": "every hour, from the north pier",
    "town": "at nine and at five, from the old harbour",
}


def departures(destination: str) -> str:
    """Return the times and the pier of the ferries to a destination."""
    return DEPARTURES.get(
        destination.lower(),
        f"There is no ferry to {destination!r}; there are {list(DEPARTURES)}.",
    )


async def main() -> None:
    """Run the agent and print its tool calls."""
    llm = await LMStudio(temperature=0).aload()
    agent = FunctionAgent(
        tools=[departures],
        llm=llm,
        system_prompt="You answer questions about ferries in one sentence.",
        initial_tool_choice="departures",
    )

    handler = agent.run(user_msg="When does the ferry to the island leave?")
    results = [
        event
        async for event in handler.stream_events()
        if isinstance(event, ToolCallResult)
    ]
    response = await handler

    for result in results:
        print(result.tool_name, result.tool_kwargs, "=", result.tool_output.content)
    print(response)
    assert [result.tool_name for result in results][:1] == ["departures"]
    assert all(
        isinstance(result.tool_kwargs["destination"], str) for result in results
    )


if __name__ == "__main__":
    asyncio.run(main())
