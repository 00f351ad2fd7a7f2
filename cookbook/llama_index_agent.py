"""Run an agent with tools in LlamaIndex.

`FunctionAgent` calls a tool and answers from its result. The first turn forces the
tool call, so that a small model does not answer without it. The model must be
trained for tool use.
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
    llm = await LMStudio(model="qwen/qwen3-4b", temperature=0).aload()
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
        print(f"Tool call: {result.tool_name}({result.tool_kwargs})")
        print("Tool result:", result.tool_output.content)
    print("Response:", response)


if __name__ == "__main__":
    asyncio.run(main())
