"""What tests use with any server: records of requests, a proxy with faults, and cassettes.

`request_log.py` has the records. `proxy/` passes on what clients and a server say, and injects faults; `cassettes/`
records what passed. `tcp.py` is what any server and proxy needs of sockets. Nothing here knows the emulator, which
uses it.
"""
