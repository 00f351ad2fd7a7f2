"""The wire protocol without I/O, shared by client and emulator: docs/protocol.md. Built on `types/`."""
