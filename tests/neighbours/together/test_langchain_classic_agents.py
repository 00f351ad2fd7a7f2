"""An agent of the ReAct kind, in text and in JSON, whose model must stop before it invents an observation."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-classic", group="retrieval", job="ReAct agents stop the model before an observation"
)

REACT = """Tools: {tools}

Action: the action to take, should be one of [{tool_names}]
Action Input: the input to the action
Observation: the result of the action

Question: {input}
Thought:{agent_scratchpad}"""

INVENTED = "I must look.\nAction: look_up\nAction Input: ferry\nObservation: never\nFinal Answer: Never."


@pytest.mark.parametrize("name", ["ChatLMStudio", "LMStudioLLM"])
async def test_a_react_agent_stops_before_an_observation(serve: Serve, name: str) -> None:
    from langchain_classic.agents import AgentExecutor, create_react_agent
    from langchain_core.prompts import PromptTemplate
    from langchain_core.tools import tool

    from lmstudio_integrations import langchain

    server = serve(
        {"when": {"last": "Observation: at noon"}, "then": "I know.\nFinal Answer: At noon."},
        {"then": INVENTED},
    )

    @tool
    def look_up(about: str) -> str:
        """Look up a time."""
        return {"ferry": "at noon"}[about.strip()]

    agent = create_react_agent(getattr(langchain, name)(model=CHAT), [look_up], PromptTemplate.from_template(REACT))
    executor = AgentExecutor(agent=agent, tools=[look_up], return_intermediate_steps=True)
    question = {"input": "When does the ferry go?"}
    for ended in (executor.invoke(question), await executor.ainvoke(question)):
        assert ended["output"] == "At noon."
        assert [(action.tool, action.tool_input, seen) for action, seen in ended["intermediate_steps"]] == [
            ("look_up", "ferry", "at noon")
        ]
    predictions = server.predictions
    assert [record.config["stopStrings"] for record in predictions] == [["\nObservation"]] * 4
    assert [record.stop_reason for record in predictions] == ["stopStringFound", "eosFound"] * 2
    assert [record.raw for record in predictions] == [name == "LMStudioLLM"] * 4


def test_a_json_agent_keeps_the_conversation(serve: Serve) -> None:
    from langchain_classic.agents import AgentType, initialize_agent
    from langchain_classic.memory import ConversationBufferMemory
    from langchain_core.tools import tool

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {
            "when": {"last": "TOOL RESPONSE"},
            "then": '```json\n{"action": "Final Answer", "action_input": "At noon."}\n```',
        },
        {"then": '```json\n{"action": "look_up", "action_input": "ferry"}\n```'},
    )

    @tool
    def look_up(about: str) -> str:
        """Look up a time."""
        return f"{about} at noon"

    memory = ConversationBufferMemory(memory_key="chat_history", return_messages=True)
    executor = initialize_agent(
        [look_up],
        ChatLMStudio(model=CHAT),
        agent=AgentType.CHAT_CONVERSATIONAL_REACT_DESCRIPTION,
        memory=memory,
    )
    for question in ("When does the ferry go?", "And again?"):
        assert executor.invoke({"input": question})["output"] == "At noon."
    assert [message.text for message in memory.chat_memory.messages][1::2] == ["At noon."] * 2
    roles = [[each["role"] for each in record.messages] for record in server.predictions]
    assert roles[0] == ["system", "user"]
    assert roles[3] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "ferry at noon" in str(server.predictions[1].messages[-1]["content"])
