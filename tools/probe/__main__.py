"""Asks a real LM Studio what docs/protocol.md lists as unknown: `python -m tools.probe MODEL --to FILE`."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from lmstudio_integrations.client.api.sync import Client
from lmstudio_integrations.client.transport.connect.addresses import Address
from tools.probe.machine import describe_machine, write_machine
from tools.probe.observations import THIS_MACHINE, write_observations
from tools.probe.run import NO_PLUGIN, describe_calls, run_probe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.probe", description=__doc__)
    parser.add_argument("model", help="a downloaded language model, by its key")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the cassette to write")
    parser.add_argument("--plugin", default=NO_PLUGIN, help="the plugin whose tools are listed; none is called")
    parser.add_argument("--host", help="the LM Studio, as host:port or a URL")
    parser.add_argument("--token", help="its API token; prefer LM_API_TOKEN")
    parser.add_argument("--source", default=THIS_MACHINE, help="what the observations call the machine")
    given = parser.parse_args()
    server = find_server(given.host, given.token)
    if Address.parse(server).tls:
        parser.error(f"{server} uses TLS, and some questions need a server without; name LM Studio itself")
    print(describe_calls(given.model, server))
    if input("Make them, and record the responses? [y/N]: ").strip().lower() not in {"y", "yes"}:
        sys.exit(1)
    requests = run_probe(
        server,
        given.model,
        given.to,
        on_question=lambda each: print(each.name, "…"),
        token=given.token,
        plugin=given.plugin,
    )
    machine = describe_machine(server, given.token)
    status = machine["server"].get("status")
    observations = write_observations(given.to, status, datetime.now(UTC).date().isoformat(), given.source)
    print(
        f"{requests} requests in {given.to}; what the server said in {observations}, and what runs on the machine in "
        f"{write_machine(machine, given.to)}. Read all three before you share them."
    )


def find_server(host: str | None, token: str | None) -> str:
    """Return the address of the server to ask.

    Raises:
        LMStudioClientError: If there is none, or it rejects the token.
    """
    with Client(host, token) as client:
        client.system.get_version()
        return client.api_host or Client.find_default_local_api_host() or ""


if __name__ == "__main__":
    main()
