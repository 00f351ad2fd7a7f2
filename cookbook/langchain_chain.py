"""A chain: a prompt, a model on LM Studio, and a parser that keeps the text.

Uses the LM Studio of this machine, or the one that `LMSTUDIO_HOST` names; `LMSTUDIO_MODEL` names another model.
"""

import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from lmstudio_integrations.langchain import ChatLMStudio

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")


def main() -> None:
    """Ask the same question twice: once for the whole answer, once for its pieces as they come."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a helpful assistant."), ("human", "What is the capital of {country}?")]
    )
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=100)
    chain = prompt | model | StrOutputParser()

    answer = chain.invoke({"country": "France"})
    print(answer)
    assert answer.strip()

    pieces: list[str] = []
    for piece in chain.stream({"country": "France"}):
        print(piece, end="", flush=True)
        pieces.append(piece)
    print()
    assert len(pieces) > 1
    assert "".join(pieces).strip()


if __name__ == "__main__":
    main()
