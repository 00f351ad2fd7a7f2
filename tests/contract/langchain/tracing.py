"""Callbacks, event streams and traces."""

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from tests.contract.langchain.integration import Integration, collect, contract
from tests.contract.models import CHAT
from tests.contract.suite import NUMBERS, SECRET, error_of


def _recording(name: str) -> Any:
    def record(self: "_Recorder", *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self.calls.append((name, run_id, args, kwargs))

    return record


class _Recorder(BaseCallbackHandler):
    """Records the calls of the model's callbacks: name, run, arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, UUID, Any, dict[str, Any]]] = []

    on_chat_model_start: Any = _recording("on_chat_model_start")
    on_llm_new_token: Any = _recording("on_llm_new_token")
    on_llm_end: Any = _recording("on_llm_end")
    on_llm_error: Any = _recording("on_llm_error")

    @property
    def names(self) -> list[str]:
        """The names of the callbacks in order, without repetitions."""
        return list(dict.fromkeys(name for name, *_ in self.calls))

    @property
    def text(self) -> str:
        """The tokens."""
        tokens = [(args, kwargs) for name, _, args, kwargs in self.calls if name == "on_llm_new_token"]
        return "".join(args[0] if args else kwargs["token"] for args, kwargs in tokens)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the first run."""
        found: dict[str, Any] = self.calls[0][3]["metadata"]
        return found


@contract("callbacks get the start, each token and the end of a stream, in one run")
async def _callbacks(integration: Integration) -> None:
    llm = integration.chat()
    for stream in (llm.stream, llm.astream):
        recorder = _Recorder()
        chunks = stream("count", {"callbacks": [recorder]})
        assert await collect(chunks) if hasattr(chunks, "__aiter__") else list(chunks)
        assert recorder.names == ["on_chat_model_start", "on_llm_new_token", "on_llm_end"]
        assert recorder.text == NUMBERS
        assert len({run_id for _, run_id, *_ in recorder.calls}) == 1


@contract("`on_llm_error` gets the error of a failed call, streaming or not")
def _errors(integration: Integration) -> None:
    llm = integration.chat()
    for call in (llm.invoke, lambda *given: list(llm.stream(*given))):
        recorder = _Recorder()
        error = error_of(lambda call=call, recorder=recorder: call("fail", {"callbacks": [recorder]}))  # type: ignore[misc]
        assert recorder.names == ["on_chat_model_start", "on_llm_error"]
        assert recorder.calls[-1][2] == (error,)


@contract("`astream_events` reports the start, each chunk and the end of a stream, in one run")
async def _events(integration: Integration) -> None:
    events = await collect(integration.chat().astream_events("count", version="v2"))
    names = [event["event"] for event in events]
    assert list(dict.fromkeys(names)) == ["on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"]
    assert len({event["run_id"] for event in events}) == 1
    chunks = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(chunks) == events[-1]["data"]["output"].text == NUMBERS


@contract("tags and metadata of `with_config` reach the callbacks")
def _config(integration: Integration) -> None:
    recorder = _Recorder()
    llm = integration.chat().with_config(tags=["a-tag"], metadata={"a": "b"}, callbacks=[recorder])
    llm.invoke("count")
    assert "a-tag" in recorder.calls[0][3]["tags"]
    assert recorder.metadata["a"] == "b"


@contract("traces contain provider, model, type, temperature, token limit and stop strings of the call")
def _traces(integration: Integration) -> None:
    recorder = _Recorder()
    llm = integration.chat(temperature=0.25, max_tokens=9)
    llm.invoke("count", {"callbacks": [recorder]}, stop=["x"])
    found = {name: recorder.metadata.get(name) for name in _TRACED}
    assert found == _TRACED, found
    assert recorder.metadata["ls_provider"]


_TRACED = {
    "ls_model_name": CHAT,
    "ls_model_type": "chat",
    "ls_temperature": 0.25,
    "ls_max_tokens": 9,
    "ls_stop": ["x"],
}


@contract("`model_provider` of a response is the provider of its trace")
def _provider(integration: Integration) -> None:
    recorder = _Recorder()
    message = integration.chat().invoke("count", {"callbacks": [recorder]})
    assert message.response_metadata["model_provider"] == recorder.metadata["ls_provider"]


@contract("traces contain no secret")
def _secrets(integration: Integration) -> None:
    recorder = _Recorder()
    integration.chat(api_key=SECRET).invoke("count", {"callbacks": [recorder]})
    assert recorder.calls
    assert SECRET not in repr(recorder.calls)
