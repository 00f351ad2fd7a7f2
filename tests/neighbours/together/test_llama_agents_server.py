"""A workflow with an agent is a service over HTTP, which a client asks and whose events it reads."""

import socket

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-agents-server",
    group="llama-index",
    job="a workflow with an agent, as a service over HTTP",
    weekly=True,
)


async def test_a_workflow_is_served(serve: Serve) -> None:
    import asyncio

    import uvicorn
    from llama_agents.client import WorkflowClient
    from llama_agents.server import WorkflowServer
    from llama_index.core.agent.workflow import FunctionAgent
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    from lmstudio_integrations.llama_index import LMStudio

    def pier(destination: str) -> str:
        """Return the pier of the ferries to a destination."""
        return f"Ferries to the {destination} leave from pier 7."

    emulator = serve(
        {"when": {"role": "tool"}, "then": "From pier 7."},
        {"then": [{"tool": "pier", "arguments": {"destination": "island"}}]},
    )

    class Called(Event):
        names: list[str]

    class Ferry(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            response = await FunctionAgent(tools=[pier], llm=LMStudio(model=CHAT)).run(ev.question)
            ctx.write_event_to_stream(Called(names=[each.tool_name for each in response.tool_calls]))
            return StopEvent(result=str(response))

    service = WorkflowServer()
    service.add_workflow("ferry", Ferry(timeout=60))
    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(service.app, log_level="error", lifespan="on"))
    task = asyncio.create_task(running.serve(sockets=[listening]))
    client = WorkflowClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
    assert (await client.is_healthy()).status == "healthy"
    started = await client.run_workflow_nowait("ferry", start_event=StartEvent(question="From which pier?"))
    events = [event async for event in client.get_workflow_events(started.handler_id)]
    called = [event.value for event in events if event.type == "Called"]
    assert called == [{"names": ["pier"]}]
    handler = await client.get_handler(started.handler_id)
    assert (handler.status, handler.result.value["result"]) == ("completed", "From pier 7.")
    running.should_exit = True
    await asyncio.wait_for(task, 30)
    assert [[tool["function"]["name"] for tool in each.tools] for each in emulator.predictions] == [["pier"]] * 2
