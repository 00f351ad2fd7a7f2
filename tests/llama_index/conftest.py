"""Every emulator of these tests is overheard by the strict judge of what a client sends."""

from tests.strict.fixture import strict

__all__ = ["strict"]
