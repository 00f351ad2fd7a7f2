"""A workflow asks the model, streams the response, and waits for a person; also as a service over HTTP."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-workflows", group="llama-index", job="a workflow streams the response, and waits for a person's answer"
)


async def test_a_workflow_waits_for_a_person(serve: Serve) -> None:
    from llama_index.core.llms import ChatMessage
    from workflows import Context, Workflow, step
    from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

    from lmstudio_integrations.llama_index import LMStudio

    server = serve({"when": {"last": "pier"}, "then": "From pier 7."}, {"then": "It is booked."})

    class Token(Event):
        text: str

    class Ferry(Workflow):
        llm = LMStudio(model=CHAT)

        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent:
            stream = await self.llm.astream_chat([ChatMessage(ev.question)])
            text = ""
            async for chunk in stream:
                ctx.write_event_to_stream(Token(text=chunk.delta or ""))
                text += chunk.delta or ""
            return InputRequiredEvent(prefix=text)

        @step
        async def book(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=(await self.llm.acomplete(f"Book it: {ev.response}")).text)

    running = Ferry(timeout=60).run(question="From which pier?")
    tokens = []
    async for event in running.stream_events():
        if isinstance(event, Token):
            tokens.append(event.text)
        if isinstance(event, InputRequiredEvent):
            assert event.prefix == "From pier 7."
            running.ctx.send_event(HumanResponseEvent(response="yes"))
    assert await running == "It is booked."
    assert "".join(tokens) == "From pier 7."
    assert len(tokens) > 2
    assert [each.messages for each in server.predictions] == [
        [{"role": "user", "content": "From which pier?"}],
        [{"role": "user", "content": "Book it: yes"}],
    ]
