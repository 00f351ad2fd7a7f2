"""Rerankers made of language models: prompts, scores, and the calls for them."""
