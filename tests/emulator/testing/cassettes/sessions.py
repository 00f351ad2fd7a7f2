"""Generated sessions that have secrets everywhere, and the check that none of them is recorded.

`python -m tests.emulator.testing.cassettes.sessions NUMBER` checks so many.
"""

import contextlib
import json
import random
import string
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Interaction, Request, Writer, read
from lmstudio_integrations.emulator.testing.cassettes.matching import Matcher
from lmstudio_integrations.emulator.testing.cassettes.recorder import Recorder
from lmstudio_integrations.emulator.testing.cassettes.redaction import Redaction
from lmstudio_integrations.emulator.testing.proxy.wire_items import Sender, WireItem

PATTERNS = (r"CUSTOMER-\d+", r"(?i)project\s+nightingale")
"""What the user of these sessions hides."""

WORDS = ("The", "ferry", "leaves", "at", "noon", "für", "日本", "\U0001f6f3", "\\", '"quoted"', "\n")


class Session:
    """One session: frames of several connections, and the secrets in them.

    Args:
        seed: Decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.secrets: set[str] = set()
        self.requests: list[Request] = []
        self.frames: list[tuple[str, Sender, dict[str, Any]]] = []
        for number in range(self.random.randint(1, 4)):
            self._connection(number)

    # Secrets --------------------------------------------------------------------------------------------------------

    def _letters(self, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(self.random.choice(alphabet) for _ in range(count))

    def _secret(self) -> str:
        """Return a text with a secret in it, which is recognized wherever it stands."""
        key, home = self._letters(20), self._letters(9, string.ascii_lowercase)
        kinds: dict[str, tuple[str, str]] = {
            "token": (f"sk-lm-{self._letters(8)}:{key}", key),
            "halves": (f"{self._letters(8)}:{key}", key),
            "other key": (f"sk-{key}", key),
            "github": (f"ghp_{key}", key),
            "hugging face": (f"hf_{key}", key),
            "aws": (f"AKIA{key[:16].upper()}", key[:16].upper()),
            "google": (f"AIza{key}{key[:15]}", key),
            "slack": (f"xoxb-{key}", key),
            "jwt": (f"eyJhbGciOiJIUzI1NiJ9.eyJ{key}.{key}", key),
            "bearer": (f"Bearer {key}", key),
            "url": (f"https://user:{key}@example.org/x", key),
            "query": (f"https://example.org/x?api_key={key}", key),
            "linux": (f"/home/{home}/notes.txt", home),
            "mac": (f"/Users/{home}/notes.txt", home),
            "windows": (f"C:\\Users\\{home}\\notes.txt", home),
            "customer": (f"CUSTOMER-{(digits := self._letters(9, string.digits))}", digits),
            "project": ("Project  Nightingale", "Nightingale"),
        }
        text, secret = kinds[self.random.choice(list(kinds))]
        self.secrets.add(secret)
        return text

    def _named(self) -> dict[str, Any]:
        """Return an object in which the name of a member says that its value is secret."""
        name = self.random.choice(["password", "apiKey", "client_secret", "Authorization", "headers", "access_token"])
        value: Any = self._hidden()
        number = self.random.randint(10**11, 10**12)
        value = self.random.choice([value, [value], {"x": value}, number])
        self.secrets |= {str(number)} if value == number else set()
        member = self.random.choice([{name: value}, {"name": name, "value": value}])
        return self.random.choice([member, {"properties": member}])

    def _hidden(self) -> str:
        """Return a text that is to be hidden as a whole, also if it is cut off after the secret in it."""
        letters = self._letters(8)
        self.secrets.add(letters)
        return self.random.choice(["", *WORDS]) + letters + self.random.choice(["", *WORDS])

    def _json(self, value: Any) -> str:
        """Return a text in which a value stands."""
        text = json.dumps(value, ensure_ascii=self.random.random() < 0.5, indent=self.random.choice([None, 2]))
        made = self.random.choice([text, f"See: {text} {text}!", json.dumps(text), json.dumps({"body": f"x {text}"})])
        return self.random.choice([made, repr(value)])

    def _arguments(self) -> Any:
        """Return arguments of a tool call, with secrets by their names and others."""
        return {"value": self._value(), "properties": self._named(), "body": self._json(self._named())}

    def _text(self) -> str:
        words = [self.random.choice(WORDS) for _ in range(self.random.randint(0, 8))]
        words.insert(self.random.randint(0, len(words)), self._secret())
        return " ".join(words)

    def _value(self) -> Any:
        makes: list[Callable[[], Any]] = [
            self._text,
            self._named,
            lambda: [self._text(), 1, None],
            lambda: {"path": self._text(), "deep": [self._named()]},
            lambda: self._json(self._named()),
        ]
        return self.random.choice(makes)()

    def _parts(self, text: str) -> list[str]:
        cuts = sorted(self.random.randint(0, len(text)) for _ in range(self.random.randint(0, 12)))
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    # Frames ---------------------------------------------------------------------------------------------------------

    def _connection(self, number: int) -> None:
        passkey, identifier = self._letters(24), f"guest:{self._letters(16)}"
        self.secrets |= {passkey, identifier}
        namespace = self.random.choice(["llm", "embedding", "files", "plugins"])
        name = f"{number}/{namespace}"
        self.frames += [
            (name, "client", {"authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey}),
            (name, "server", {"success": True}),
        ]
        about = f"passkey {passkey} of {identifier}"
        for request_id in range(self.random.randint(1, 4)):
            make = {"llm": self._prediction, "plugins": self._tools}.get(namespace, self._call)
            make(name, namespace, request_id, about)

    def _ask(self, name: str, namespace: str, endpoint: str, request_id: int, parameter: Any) -> None:
        is_call = endpoint not in {"predict", "startToolUseSession"}
        frame = (
            {"type": "rpcCall", "callId": request_id, "parameter": parameter}
            if is_call
            else {"type": "channelCreate", "channelId": request_id, "creationParameter": parameter}
        )
        self.frames.append((name, "client", {**frame, "endpoint": endpoint}))
        self.requests.append(Request(namespace, endpoint, parameter))

    def _packet(self, name: str, request_id: int, packet: Any, sender: Sender = "server") -> None:
        self.frames.append((name, sender, {"type": "channelSend", "channelId": request_id, "message": packet}))

    def _prediction(self, name: str, namespace: str, request_id: int, about: str) -> None:
        tool = {"name": "t", "parameters": {"type": "object", "properties": {"password": {"type": "string"}}}}
        field = {"key": "llm.prediction.apiKey", "value": (key := self._letters(12))}
        self.secrets.add(key)
        parameter = {
            "modelSpecifier": {"type": "query", "query": {"identifier": "m"}},
            "history": {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": self._text()}]},
                    {"role": "assistant", "content": [{"toolCallRequest": {"arguments": self._arguments()}}]},
                    {"role": "tool", "content": [{"type": "toolCallResult", "content": self._json(self._named())}]},
                ]
            },
            "predictionConfigStack": {
                "layers": [{"layerName": "apiOverride", "config": {"fields": [field, {"key": "x", "value": [tool]}]}}]
            },
        }
        self._ask(name, namespace, "predict", request_id, parameter)
        text = f"{self._text()} {about} {self._json(self._named())}"
        for part in self._parts(text):
            token = {"text": part, "id": 7, "candidates": [{"text": part, "id": 7}]}
            self._packet(name, request_id, {"type": "fragment", "fragment": {"content": part, "tokens": [token]}})
        for _ in range(2):
            self._tool_call(name, request_id)
        if self.random.random() < 0.5:
            self._packet(name, request_id, {"type": "cancel", "why": self._text()}, "client")
        error = {"title": self._text(), "cause": about, "errorData": self._value()}
        self.frames.append((name, "server", {"type": "channelError", "channelId": request_id, "error": error}))

    def _tool_call(self, name: str, request_id: int) -> None:
        arguments = self._arguments()
        written = json.dumps(arguments, ensure_ascii=self.random.random() < 0.5)
        xml = "".join(f"<parameter={each}>\n{value}\n</parameter>" for each, value in arguments["properties"].items())
        if self.random.random() < 0.2:  # it is cut off
            written = written[: self.random.randint(0, len(written))]
        self._packet(name, request_id, {"type": "toolCallGenerationStart"})
        for part in self._parts(written):
            packet = {"type": "toolCallGenerationArgumentFragmentGenerated", "content": part}
            self._packet(name, request_id, packet)
        raw = f'<tool_call>{{"name": "t", "arguments": {written}}}</tool_call> {xml}'
        call = {"type": "function", "name": "t", "arguments": arguments}
        self._packet(name, request_id, {"type": "toolCallGenerationEnd", "toolCallRequest": call, "rawContent": raw})

    def _tools(self, name: str, namespace: str, request_id: int, about: str) -> None:
        value = self._letters(12)
        self.secrets.add(value)
        config = {"type": "direct", "config": {"fields": [{"key": "harmless", "value": value}]}}
        parameter = {"pluginIdentifier": "mcp/x", "pluginConfigSpecifier": config}
        self._ask(name, namespace, "startToolUseSession", request_id, parameter)
        call = {"type": "callTool", "callId": 1, "name": "t", "arguments": self._arguments()}
        self._packet(name, request_id, call, "client")
        self._packet(name, request_id, {"type": "toolCallStatus", "status": {"text": about}})
        self._packet(name, request_id, {"type": "toolCallComplete", "callId": 1, "result": self._value()})

    def _call(self, name: str, namespace: str, request_id: int, about: str) -> None:
        upload = self._letters(40)
        self.secrets.add(upload)
        endpoint, parameter = self.random.choice(
            [
                ("tokenize", {"inputString": self._text()}),
                ("embedString", {"inputString": self._text()}),
                ("uploadFileBase64", {"name": self._text(), "contentBase64": upload}),
            ]
        )
        self._ask(name, namespace, endpoint, request_id, parameter)
        if self.random.random() < 0.5:
            frame: dict[str, Any] = {"type": "rpcResult", "callId": request_id, "result": {"x": self._value()}}
        else:
            frame = {"type": "communicationWarning", "warning": f"Received {endpoint} {about} {self._text()}"}
        self.frames.append((name, "server", frame))


def leaks(session: Session, path: Path) -> list[str]:
    """Record a session; return what is wrong with it.

    That is secrets in the cassette, requests that are not found again, and tool calls that do not arrive as they did.
    """
    writer = Writer(path)
    recorder = Recorder(writer.write, Redaction(PATTERNS))
    connections: dict[str, Any] = {}
    for name, sender, message in session.frames:
        connection = connections.setdefault(name, Mock(path=f"/{name.partition('/')[2]}"))
        recorder.on_item(connection, WireItem(sender, b"", message=message))
    for connection in connections.values():
        recorder.on_end(connection)
    writer.close()
    recorded = path.read_text(encoding="utf-8")
    interactions = read(path)
    matcher = Matcher(interactions, Redaction(PATTERNS))
    found = [f"in the file: {secret}" for secret in sorted(session.secrets) if secret in recorded]
    assert all(request.parameter is not ABSENT for request in session.requests)
    found += [f"two values: {each}" for interaction in interactions for each in _contradictions(interaction)]
    return found + [f"not found: {request}" for request in session.requests if matcher.find(request) is None]


def _contradictions(interaction: Interaction) -> Iterator[str]:
    """Return the texts of tool calls that are not the arguments of the same call."""
    text = ""
    for packet in interaction.packets():
        text = "" if packet["type"] == "toolCallGenerationStart" else text + str(packet.get("content", ""))
        if packet["type"] == "toolCallGenerationEnd":
            with contextlib.suppress(ValueError):  # it was cut off
                if json.loads(text) != packet["toolCallRequest"]["arguments"]:
                    yield text


def main(count: int) -> int:
    """Check so many sessions; return the status of the process."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            found = leaks(Session(seed), Path(folder) / f"{seed}.lms.jsonl")
            if found:
                print(f"session {seed}: {found}")
                return 1
    print(f"{count} sessions, no secret in any file")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
