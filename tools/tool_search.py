"""Measures `ToolSearchMiddleware` on a list of 200 tools and 100 requests: `python -m tools.tool_search`.

It counts the tokens of the definitions in the prompt, and how often the right tool is among the five found: by words,
and with the real models of the emulator. `--reranker` takes minutes: it is a model of 135 million parameters, not
trained for it.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, StructuredTool

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED, parse_model
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioReranker
from lmstudio_integrations.langchain.middleware import ToolSearchMiddleware
from tools import ROOT

LIST = ROOT / "tests/langchain/many_tools.json"
"""Definitions of tools, and requests with the tool that each needs. Who wrote them had not seen the search. The query
of each is what a model searched for that had seen neither the tools nor which of them is needed."""

CHAT, EMBEDDING = (next(key for key, kind in BUNDLED.items() if kind == each) for each in ("llm", "embedding"))


def tools_of(definitions: Any) -> list[BaseTool]:
    """Return LangChain's tools for definitions in wire form."""
    functions = [definition["function"] for definition in definitions]
    return [
        StructuredTool(
            name=each["name"],
            description=each.get("description", ""),
            args_schema=each["parameters"],
            func=lambda **_: "done",
        )
        for each in functions
    ]


def misses(search: ToolSearchMiddleware, tools: list[BaseTool], requests: Any, by: str) -> list[str]:
    """Return the requests whose tool was not among those found by their text or their query."""
    runtime: Any = SimpleNamespace(tools=tools)
    texts = [(each, search._find(each[by], runtime)) for each in requests]
    return [f"{each['tool']}: {each[by]}" for each, result in texts if f"\n{each['tool']}(" not in result]


def definition_tokens(model: ChatLMStudio, tools: Any) -> int:
    """Return how many tokens of a prompt are the definitions of tools."""
    message = [HumanMessage("Hello!")]
    alone = model.get_num_tokens_from_messages(message)
    return model.get_num_tokens_from_messages(message, tools=tools) - alone


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tools.tool_search")
    parser.add_argument("--reranker", action="store_true", help="also with the reranker")
    parser.add_argument("--missed", action="store_true", help="print the requests that missed their tool")
    arguments = parser.parse_args()
    data = json.loads(LIST.read_text(encoding="utf-8"))
    tools, requests = tools_of(data["tools"]), data["requests"]
    with Emulator([parse_model(CHAT), parse_model(EMBEDDING)]) as server:
        model = ChatLMStudio(model=CHAT, host=server.address)
        embeddings = LMStudioEmbeddings(model=EMBEDDING, host=server.address)
        always = [each.name for each in tools[:3]]
        search = ToolSearchMiddleware(embeddings=embeddings, always=always)
        print(f"tokens of {len(tools)} definitions: {definition_tokens(model, tools):,}")
        shown = [*tools[:3], *search.tools]
        print(f"tokens with the search, and 3 tools that are always shown: {definition_tokens(model, shown):,}\n")
        searches: dict[str, Any] = {"words": {}, "words and the embedding model": {"embeddings": embeddings}}
        if arguments.reranker:
            reranker = LMStudioReranker(model=CHAT, host=server.address)
            searches["words, the embedding model and the reranker"] = {"embeddings": embeddings, "reranker": reranker}
        print("| searched by | found by a query of a model | by the words of the user |\n| --- | --- | --- |")
        for name, settings in searches.items():
            wrong = [misses(ToolSearchMiddleware(**settings), tools, requests, by) for by in ("query", "text")]
            counts = " | ".join(f"{len(requests) - len(each)} of {len(requests)}" for each in wrong)
            print(f"| {name} | {counts} |", flush=True)
            if arguments.missed:
                print("\n".join(f"    {each}" for group in wrong for each in group))


if __name__ == "__main__":
    main()
