"""What a recording of a real LM Studio shows about the emulator and about docs/protocol.md."""
