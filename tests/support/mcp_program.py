"""An MCP server over stdio, which tests start as a program. It needs only the standard library, and can misbehave.

Environment variables: `RECORD` is a file that it appends a line to for each start, call and cancellation; `LOCK` is a
file that it and its children lock as long as they run. The argument is how it behaves, see `main`.
`mcp_package_server.py` is a server that is written with the package `mcp`.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHILD = """
import fcntl, os, sys, time
lock = open(os.environ["LOCK"])
fcntl.flock(lock, fcntl.LOCK_SH)
os.write(int(sys.argv[1]), b"x")
time.sleep(60)
"""

PER_PAGE = 5
"""The tools of a page."""

lock = Path(os.environ.get("LOCK", os.devnull)).open()  # noqa: SIM115 - as long as the program runs
held: dict[int, str] = {}
"""The arguments of the calls that `release` ends, by their ids."""


@dataclass
class Call:
    """A call of a tool."""

    id: int
    arguments: dict[str, Any]
    token: object


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def record(line: str) -> None:
    if "RECORD" in os.environ:
        with Path(os.environ["RECORD"]).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def finish(call: Call, *texts: str, **result: Any) -> None:
    send(id=call.id, result={"content": [{"type": "text", "text": text} for text in texts], **result})


def echo(call: Call) -> None:
    finish(call, json.dumps(call.arguments))


def hold(call: Call) -> None:
    held[call.id] = str(call.arguments)


def release(call: Call) -> None:
    for number in list(held):
        finish(Call(number, {}, None), held.pop(number))
    finish(call)


def report(call: Call) -> None:
    for progress in ({"progress": 1, "message": "begun"}, {"progress": 2.5}, {"progress": 12345678, "total": 2e7}):
        send(method="notifications/progress", params={"progressToken": call.token, **progress})
    finish(call)


def log(call: Call) -> None:
    for level, data in (("info", "not this"), ("warning", "watch out"), ("error", {"disk": "full"})):
        send(method="notifications/message", params={"level": level, "data": data})
    finish(call)


def fail(call: Call) -> None:
    finish(call, *call.arguments["texts"], isError=True)


def fault(call: Call) -> None:
    send(id=call.id, error={"code": -32602, "message": f"there is a fault with {os.environ.get('API_KEY')}"})


def image(call: Call) -> None:
    text, data = {"type": "text", "text": "an image"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}
    send(id=call.id, result={"content": [text, data]})


def structured(call: Call) -> None:
    finish(call, '{"celsius": null}', structuredContent={"celsius": None})


def where(call: Call) -> None:
    finish(call, json.dumps({"directory": str(Path.cwd()), "environment": dict(os.environ)}))


def start(call: Call) -> None:
    """Start a child that shares standard error, or output, or none."""
    shares = call.arguments.get("shares")
    ready, is_ready = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(is_ready)],
        stdin=subprocess.DEVNULL,
        stdout=None if shares == "output" else subprocess.DEVNULL,
        stderr=None if shares == "errors" else subprocess.DEVNULL,
        pass_fds=[is_ready],
    )
    os.read(ready, 1)
    finish(call, str(child.pid))


def die(_: Call) -> None:
    sys.stderr.write("my last words\n")
    sys.stderr.flush()
    os._exit(7)


RUN: list[Callable[[Call], None]] = [
    *(echo, hold, release, report, log, fail, fault, image, structured, where, start, die)
]
TOOLS = {run.__name__: run for run in RUN}


def page(cursor: str | None) -> dict[str, Any]:
    """Return tools. The definition of the first lacks what it may lack."""
    first = int(cursor or 0)
    schema = {"type": "object", "properties": {"a": {}}}
    names = list(TOOLS)[first : first + PER_PAGE]
    tools = [{"name": name, "description": f"Tool {name}", "inputSchema": schema} for name in names]
    if first == 0:
        tools[0] = {"name": names[0], "inputSchema": {"type": "object"}}
    following = first + PER_PAGE
    return {"tools": tools, **({"nextCursor": str(following)} if following < len(TOOLS) else {})}


def answer(message: dict[str, Any]) -> None:
    method, parameters = message.get("method"), message.get("params", {})
    if method == "notifications/cancelled":
        record(f"cancelled {held.pop(parameters['requestId'], 'unknown')}")
    elif method == "initialize":
        server = {"capabilities": {"tools": {}, "logging": {}}, "serverInfo": {"name": "program", "version": "1"}}
        send(id=message["id"], result={"protocolVersion": parameters["protocolVersion"], **server})
    elif method == "tools/list":
        send(id=message["id"], result=page(parameters.get("cursor")))
    elif method == "tools/call":
        record(f"call {parameters['name']}")
        token = parameters.get("_meta", {}).get("progressToken")
        TOOLS[parameters["name"]](Call(message["id"], parameters.get("arguments", {}), token))


def main(behavior: str) -> None:
    """Serve, unless the behavior is to do something else."""
    fcntl.flock(lock, fcntl.LOCK_SH)
    record("start")
    if behavior == "exit":
        sys.exit(f"I cannot find my configuration, with {os.environ.get('API_KEY')}")
    if behavior == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stderr.write("I am here\n")
    sys.stderr.flush()
    if behavior == "chatty":
        sys.stdout.write("Welcome!\n")
    for line in sys.stdin:
        message = json.loads(line)
        if behavior == "old":
            send(id=message["id"], error={"code": -32600, "message": "I do not know this version"})
        elif behavior != "silent":
            answer(message)
    if behavior == "stubborn":
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "normal")
