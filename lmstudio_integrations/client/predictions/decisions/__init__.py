"""What a model thinks, as a number: relevance of texts to a query, and answers to typed questions.

`first_token.py` has what both read, the probabilities of a response's first token, and `prompts.py` what every prompt
goes through; `reranking.py` asks about texts, and `deciding.py` about a state. `decider.py` asks a decision model, over
HTTP by `systemone.py`, and `answers.py` checks what it said. Models of both kinds take the same states and questions,
which `states.py` reads.
"""
