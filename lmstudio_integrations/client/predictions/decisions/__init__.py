"""What a language model thinks, as a number: relevance of texts to a query, and answers to typed questions.

`first_token.py` has what both read, the probabilities of a response's first token, and `prompts.py` what every prompt
goes through; `reranking.py` asks about texts, and `deciding.py` about a state.
"""
