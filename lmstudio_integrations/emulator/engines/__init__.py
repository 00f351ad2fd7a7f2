"""What runs a model: scripted rules for tests, or llama.cpp with real weights.

`base.py` is what the server expects of an engine, and `table.py` names the engines that are loaded on first use.
"""
