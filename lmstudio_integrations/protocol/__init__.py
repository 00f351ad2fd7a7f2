"""The wire, without I/O: what client and emulator share. Imports no transport, no thread, no event loop."""
