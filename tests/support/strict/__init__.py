"""A strict check of what a client sends, and of what the server sends on channels of plugins.

The shapes are those of the official TypeScript SDK: nothing here imports the package's own idea of the wire, so no
mistake can sit on both sides. `listener.py` checks the frames of one socket, `fixture.py` those of every emulator of a
test.
"""
