"""What runs a model: scripted rules for tests, or llama.cpp with real weights.

`base.py` is what the server expects of an engine, `weights.py` finds and fetches the bundled models.
"""
