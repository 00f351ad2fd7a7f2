"""`ToolSearchMiddleware`: an agent with many tools in a small context window, without losing the prompt cache."""

import json
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import Annotated, Any, NamedTuple, NotRequired, TypeAlias, TypeVar

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.tools import ToolRuntime
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.ai import add_usage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from lmstudio_integrations._support.suggestions import explain_unknown_name
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
from lmstudio_integrations.client.predictions.calls_in_text.call_repair import (
    MeantTools,
    WrongCall,
    calls_of,
    response_schema,
    sentence,
)
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import NoCallError
from lmstudio_integrations.client.support.arguments import texts_of, whole_number
from lmstudio_integrations.langchain._tools import openai_tool
from lmstudio_integrations.langchain.chat_models import ChatLMStudio
from lmstudio_integrations.langchain.middleware._ranking import (
    all_words,
    best,
    by_vectors,
    by_words,
    compact,
    embeddable,
    name_and_description,
)
from lmstudio_integrations.langchain.middleware._turns import CALL_TOOL, FIND_TOOLS
from lmstudio_integrations.types.config import switched_off

logger: logging.Logger = logging.getLogger(__name__)

_Request: TypeAlias = ModelRequest[Any]
_Response: TypeAlias = ModelResponse[Any]

_HIDDEN = "nostream"
"""The tag by which LangGraph leaves a model out of its stream of tokens."""

_REPAIRED = "repaired_tool_calls"


class CallRepair(NamedTuple):
    """The request, and what is made of its response.

    Attributes:
        request: The request, which the model can answer only with calls of the tools.
        first: The response with the calls that do not fit.
        wrong: These calls, by their identifiers.
    """

    request: _Request
    first: _Response
    wrong: Mapping[str | None, WrongCall]

    @classmethod
    def of(cls, request: _Request, response: _Response, wrong: Mapping[str | None, WrongCall]) -> "CallRepair | None":
        """Return the request that follows on another one; `None` if there is nothing to ask, or it is not wanted."""
        model = request.model
        if not (wrong and isinstance(model, ChatLMStudio) and model.repair_tool_calls):
            return None
        attempt = response.result[-1].text.strip() or "\n".join(each.text for each in wrong.values())
        instruction = sentence([*wrong.values()], with_tools=True)
        response_format = {"type": "json_schema", "json_schema": {"schema": response_schema([*wrong.values()])}}
        asking = request.override(
            model=model.model_copy(update={"tags": [*(model.tags or ()), _HIDDEN]}),
            messages=[*request.messages, AIMessage(attempt), HumanMessage(instruction)],
            tools=[],
            tool_choice=None,
            response_format=None,
            model_settings={
                **request.model_settings,
                "response_format": response_format,
                "enable_thinking": False,
                **switched_off("penalty"),
            },
        )
        return cls(asking, response, wrong)

    @contextmanager
    def keeping_the_first(self) -> Generator[None]:
        """Log an error of the request: the first response stays."""
        try:
            yield
        except GraphBubbleUp:  # a middleware that is called by the request interrupts the graph
            raise
        except Exception as error:  # noqa: BLE001 - the model reads what is wrong with its calls, whatever it is
            logger.warning("the request to mend a call failed: %s", error)

    def mended(self, response: _Response) -> _Response:
        """Return the first response with the calls that the second one has in their place."""
        answer = response.result[-1]
        calls = dict(zip(self.wrong, calls_of(answer.text, [*self.wrong.values()]), strict=True))

        def change(message: BaseMessage) -> BaseMessage:
            if not isinstance(message, AIMessage) or not any(calls.get(call["id"]) for call in message.tool_calls):
                return message
            changed, repaired = list[ToolCall](), list[dict[str, Any]]()
            for call in message.tool_calls:
                new = calls.get(call["id"])
                args = call["args"] if new is None else {"name": new.tool.name, "arguments": new.arguments}
                changed.append(ToolCall(name=call["name"], args=args, id=call["id"], type="tool_call"))
                if new is not None:
                    repaired.append({"sent": self.wrong[call["id"]].text, "replaced_by": args})
            logger.warning("mended %s of %s", len(repaired), CALL_TOOL)
            metadata = message.response_metadata
            return message.model_copy(
                update={
                    "tool_calls": changed,
                    "response_metadata": {**metadata, _REPAIRED: [*metadata.get(_REPAIRED, ()), *repaired]},
                    "usage_metadata": add_usage(message.usage_metadata, getattr(answer, "usage_metadata", None)),
                }
            )

        return replace(self.first, result=[change(message) for message in self.first.result])


_FIND = "Search for tools by what they do, in a few words. Most tools are not listed here: search before you give up."
_CALL = "Call a tool that find_tools has found, by its name, with its arguments as an object."

_NEEDED = f"{CALL_TOOL} needs the name of a tool, and its arguments as an object."

_CANDIDATES = 4
"""How many times more tools a reranker scores than are found."""

_Runtime: TypeAlias = ToolRuntime[Any, Any]
_MessageT = TypeVar("_MessageT", bound=BaseMessage)


class _MisfitError(ToolException):
    """A call of a tool does not fit."""

    def __init__(self, text: str, wrong: WrongCall) -> None:
        super().__init__(text)
        self.wrong = wrong


class ToolSearchState(AgentState[Any]):
    """The state of an agent whose tools are searched."""

    searchable_tools: NotRequired[Annotated[list[str], PrivateStateAttr]]
    """The names of the tools that the last model call had: a middleware outside may take some away."""


class ToolSearchMiddleware(AgentMiddleware[ToolSearchState, Any, Any]):
    """Let the model search for tools, in place of sending the definitions of all.

    The prompt begins with the tools that `always` names, `find_tools` and `call_tool`. These never change, so what
    follows stays in the prompt cache. `find_tools` returns the best tools with their definitions, in compact form, as a
    result at the end of the conversation. `call_tool` calls one of them: the call is checked against the schema of that
    tool. If it fits, it becomes a call of the tool itself, which the agent runs as any other: with its state, runtime,
    artifacts and commands, and with the other middlewares, such as one that asks for approval. Only the model sees it
    as a call of `call_tool`. If it does not fit, it is mended as `repair_tool_calls` of the model says: at once, or by
    one more request, by grammar. Otherwise the model reads what is wrong, and the definition.

    Tools are found by the words of their names, descriptions and parameters, and better by an embedding model as well.
    The vectors of tools are computed once, in the first search. A reranker sorts the best candidates, with one call for
    each.

    ```python
    from langchain.agents import create_agent

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
    from lmstudio_integrations.langchain.middleware import ToolSearchMiddleware

    embeddings = LMStudioEmbeddings(model="text-embedding-all-minilm-l6-v2")
    model = ChatLMStudio(model="qwen/qwen3-4b")
    agent = create_agent(model, middleware=[ToolSearchMiddleware(embeddings=embeddings)])
    ```

    Args:
        embeddings: An embedding model, such as `LMStudioEmbeddings`. By default, only words count.
        reranker: A reranker, such as `LMStudioReranker`. By default, there is none.
        always: The names of tools that the model always sees. Those of other middlewares count, too. A call that does
            not have such a tool does without it, and the log has a warning.
        most: How many tools a search returns at most. The default is 5.

    Raises:
        LMStudioValueError: If an argument cannot be used.
    """

    state_schema = ToolSearchState

    def __init__(
        self,
        *,
        embeddings: Embeddings | None = None,
        reranker: BaseDocumentCompressor | None = None,
        always: Iterable[str] = (),
        most: int = 5,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.reranker = reranker
        self.always: tuple[str, ...] = tuple(texts_of(always, "always"))
        self.most: int = whole_number(most, "most") or 5
        self.tools: Sequence[BaseTool] = [
            StructuredTool.from_function(self._find, name=FIND_TOOLS, description=_FIND),
            StructuredTool.from_function(
                self._call,
                name=CALL_TOOL,
                description=_CALL,
                handle_tool_error=True,
                handle_validation_error=_NEEDED,
            ),
        ]
        self._functions: dict[str, tuple[BaseTool, dict[str, Any]]] = {}
        self._vectors: dict[str, Sequence[float]] = {}
        self._lock = Lock()
        self._missing: set[str] = set()

    # Calls of the model -----------------------------------------------------------------------------------------------

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> _Response | ExtendedModelResponse[Any]:
        """Hide tools from the model, and make its calls those of the tools; LangChain calls this."""
        shown = self._hide_tools(request)
        response, misfits = self._resolve_calls(handler(shown), request.tools)
        repair = CallRepair.of(shown, response, misfits)
        if repair is not None:
            with repair.keeping_the_first():
                response = repair.mended(handler(repair.request))
            response, _ = self._resolve_calls(response, request.tools)
        return _with_names(response, request.tools)

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> _Response | ExtendedModelResponse[Any]:
        """Hide tools from the model, and make its calls those of the tools; LangChain calls this."""
        shown = self._hide_tools(request)
        response, misfits = self._resolve_calls(await handler(shown), request.tools)
        repair = CallRepair.of(shown, response, misfits)
        if repair is not None:
            with repair.keeping_the_first():
                response = repair.mended(await handler(repair.request))
            response, _ = self._resolve_calls(response, request.tools)
        return _with_names(response, request.tools)

    def _hide_tools(self, request: _Request) -> _Request:
        """Return a request without the hidden tools, in whose messages `call_tool` calls them."""
        hidden = self._hidden(request.tools)
        tools = [tool for tool in request.tools if not isinstance(tool, BaseTool) or tool.name not in hidden]
        return request.override(tools=tools, messages=[_as_sent(message, hidden) for message in request.messages])

    def _resolve_calls(
        self, response: _Response, tools: Iterable[Any]
    ) -> tuple[_Response, dict[str | None, WrongCall]]:
        """Return a response in which the calls of `call_tool` are those of the tools, if they fit.

        Those that do not, and that only the model can mend, are returned by their identifiers.
        """
        by_name, misfits = _callable(tools), dict[str | None, WrongCall]()

        def resolve(call: ToolCall) -> ToolCall:
            try:
                return self._resolve(call, by_name) if call["name"] == CALL_TOOL else call
            except _MisfitError as error:
                misfits[call["id"]] = error.wrong
            except ToolException:  # the tool `call_tool` says what is wrong
                pass
            return call

        return replace(response, result=[_with_calls(message, resolve) for message in response.result]), misfits

    def _hidden(self, tools: Iterable[Any]) -> dict[str, BaseTool]:
        by_name = _callable(tools)
        for name in self.always:
            if name not in by_name and name not in self._missing:
                self._missing.add(name)
                remedy = explain_unknown_name(name, list(by_name))
                logger.warning("always names the tool %r, which a model call did not have; %s", name, remedy)
        return {name: tool for name, tool in by_name.items() if name not in self.always}

    def _resolve(self, call: ToolCall, tools: Mapping[str, BaseTool]) -> ToolCall:
        """Return the call of a tool that a call of `call_tool` stands for.

        Raises:
            ToolException: If there is no such tool, or the arguments do not fit.
        """
        name, args = _name_and_arguments(call["args"])
        tool = MeantTools({"function": {"name": each}} for each in tools).meant(name)
        if tool is None:
            raise ToolException(f"there is no tool {name!r}. {FIND_TOOLS} finds the tools that there are.")
        function = self._function(tools[tool.name])
        offered = OfferedTool(function)
        try:
            arguments = mend(offered, args)
            problem = arguments is None and offered.problem(args)
        except NoCallError:  # the schema cannot be used; the tool itself checks
            arguments, problem = args, None
        if arguments is None:
            text = json.dumps({"name": name, "arguments": args}, ensure_ascii=False)
            wrong = WrongCall(text, str(problem), offered, args)
            raise _MisfitError(f"{tool.name} did not run: {problem}. Its definition:\n{compact(function)}", wrong)
        return ToolCall(name=tool.name, args=arguments, id=call["id"], type="tool_call")

    def _call(self, name: str, arguments: dict[str, Any], runtime: _Runtime) -> str:
        """Raise what is wrong with a call that `wrap_model_call` could not resolve."""
        call = ToolCall(name=CALL_TOOL, args={"name": name, "arguments": arguments}, id=None)
        available = _available(runtime)
        if name in available or name not in _callable(runtime.tools):
            self._resolve(call, available)
        raise ToolException(f"{name} is not available now. {FIND_TOOLS} finds the tools that are.")

    # Searches ---------------------------------------------------------------------------------------------------------

    def _find(self, query: str, runtime: _Runtime) -> str:
        """Find tools, and return their definitions. Event loops run it in a thread, like any tool without coroutine."""
        functions = [self._function(tool) for tool in self._hidden(_available(runtime).values()).values()]
        words, vectors = by_words([all_words(function) for function in functions], query), None
        texts = [name_and_description(function) for function in functions]
        if self.embeddings is not None and texts:
            vectors = by_vectors(self._embed(self.embeddings, texts), self.embeddings.embed_query(embeddable(query)))
        indices = best(words, vectors, self.most * (1 if self.reranker is None else _CANDIDATES))
        if self.reranker is not None and indices:
            documents = [Document(texts[at], metadata={"at": at}) for at in indices]
            ranked = self.reranker.compress_documents(documents, query)
            indices = [document.metadata["at"] for document in ranked][: self.most]
        if not indices:
            return "No tool was found. Search with other words."
        return "\n".join([f"Call these with {CALL_TOOL}:", *(compact(functions[at]) for at in indices)])

    def _embed(self, embeddings: Embeddings, texts: Sequence[str]) -> list[Sequence[float]]:
        """Return the vectors of texts. Those of searches that run at once are computed once."""
        with self._lock:
            missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
            if missing:
                self._vectors.update(zip(missing, embeddings.embed_documents(missing), strict=True))
            return [self._vectors[text] for text in texts]

    def _function(self, tool: BaseTool) -> dict[str, Any]:
        """Return the definition of a tool; making it takes about a millisecond."""
        entry = self._functions.get(tool.name)
        if entry is None or entry[0] is not tool:
            entry = self._functions[tool.name] = (tool, openai_tool(tool)["function"])
        return entry[1]


def _available(runtime: _Runtime) -> dict[str, BaseTool]:
    """Return the tools that `call_tool` could call when the model made the call, by name."""
    tools, names = _callable(runtime.tools), runtime.state.get("searchable_tools")
    return tools if names is None else {name: tool for name, tool in tools.items() if name in names}


def _with_names(response: _Response, tools: Iterable[Any]) -> _Response | ExtendedModelResponse[Any]:
    """Return a response, with the names of the tools for `find_tools` and `call_tool` if it calls one of them."""
    messages = [message for message in response.result if isinstance(message, AIMessage)]
    if not any(call["name"] in {FIND_TOOLS, CALL_TOOL} for message in messages for call in message.tool_calls):
        return response
    return ExtendedModelResponse(response, Command(update={"searchable_tools": [*_callable(tools)]}))


def _callable(tools: Iterable[Any]) -> dict[str, BaseTool]:
    """Return the tools that `call_tool` may call, by name."""
    by_name = {tool.name: tool for tool in tools if isinstance(tool, BaseTool)}
    return {name: tool for name, tool in by_name.items() if name not in {FIND_TOOLS, CALL_TOOL}}


def _name_and_arguments(args: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments in a call of `call_tool`, also where they are beside it, or a string.

    Raises:
        ToolException: If it has no arguments.
    """
    arguments: object = args.get("arguments", {key: value for key, value in args.items() if key != "name"})
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if not is_object(arguments):
        raise ToolException(_NEEDED)
    return str(args.get("name")), arguments


def _as_sent(message: AnyMessage, hidden: Mapping[str, BaseTool]) -> AnyMessage:
    """Return a message of the agent as the model wrote it, or as it reads it."""
    if isinstance(message, ToolMessage) and message.name in hidden:
        return message.model_copy(update={"name": CALL_TOOL})

    def wrap(call: ToolCall) -> ToolCall:
        if call["name"] not in hidden:
            return call
        return ToolCall(name=CALL_TOOL, args={"name": call["name"], "arguments": call["args"]}, id=call["id"])

    return _with_calls(message, wrap)


def _with_calls(message: _MessageT, change: Callable[[ToolCall], ToolCall]) -> _MessageT:
    """Return a message with other calls, also in the blocks of its content."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return message
    changed = {call["id"]: change(call) for call in message.tool_calls}
    if all(changed[call["id"]] is call for call in message.tool_calls):
        return message

    def block(content: Any) -> Any:
        call = changed.get(content.get("id")) if is_object(content) and content.get("type") == "tool_call" else None
        return content if call is None else {**content, "name": call["name"], "args": call["args"]}

    content = [block(each) for each in message.content] if is_list(message.content) else message.content
    return message.model_copy(update={"tool_calls": list(changed.values()), "content": content})
