"""A model judges an answer, also one that is named by a string, and embeddings compare answers."""

import json

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "openevals",
    group="evaluation",
    job="a model judges answers, and embeddings compare them",
    settings="`register()` before a model is named by `lmstudio:…`",
)

JUDGED = {"reasoning": "It repeats itself.", "score": 0.5}
ASKED, ANSWERED = "How is the weather?", "It rains, and it rains."


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("named", [False, True])
async def test_a_model_judges_an_answer(serve: Serve, named: bool, asynchronous: bool) -> None:
    from openevals.llm import create_async_llm_as_judge, create_llm_as_judge
    from openevals.prompts import CONCISENESS_PROMPT

    from lmstudio_integrations.langchain import ChatLMStudio, register

    register()
    server = serve({"then": json.dumps(JUDGED)})
    model = {"model": f"lmstudio:{CHAT}"} if named else {"judge": ChatLMStudio(model=CHAT)}
    make = create_async_llm_as_judge if asynchronous else create_llm_as_judge
    judge = make(prompt=CONCISENESS_PROMPT, feedback_key="conciseness", choices=[0.0, 0.5, 1.0], **model)
    judged = judge(inputs=ASKED, outputs=ANSWERED)
    result = await judged if asynchronous else judged
    assert result == {"key": "conciseness", "score": 0.5, "comment": "It repeats itself.", "metadata": None}
    (request,) = server.predictions
    assert [each["role"] for each in request.messages] == ["user"]
    assert f"<output>\n{ANSWERED}\n</output>" in request.messages[0]["content"]
    schema = request.config["structured"]["jsonSchema"]
    assert schema["required"] == ["reasoning", "score"]
    assert schema["properties"]["score"]["enum"] == [0.0, 0.5, 1.0]


async def test_embeddings_compare_answers(serve: Serve) -> None:
    from openevals.string.embedding_similarity import (
        create_async_embedding_similarity_evaluator,
        create_embedding_similarity_evaluator,
    )

    from lmstudio_integrations.langchain import register

    register()
    server = serve(models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    compare = create_embedding_similarity_evaluator(model=f"lmstudio:{REAL_EMBEDDING}")
    acompare = create_async_embedding_similarity_evaluator(model=f"lmstudio:{REAL_EMBEDDING}")
    like = compare(outputs="The weather is nice!", reference_outputs="The weather is wonderful!")["score"]
    unlike = (await acompare(outputs="The ship is late.", reference_outputs="The weather is wonderful!"))["score"]
    assert like > 0.9
    assert unlike < 0.5
    assert len(server.embedded_texts) == 4
