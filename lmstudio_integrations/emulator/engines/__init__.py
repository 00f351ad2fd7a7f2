"""Engines behind the emulator: a scripted one for tests, and llama.cpp with real weights."""
