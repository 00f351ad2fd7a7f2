"""What a language model thinks, as a number: relevance of texts to a query, and answers to typed questions.

`first_token.py` has what both read, the probabilities of a response's first token; `reranking.py` asks about texts and
`deciding.py` about a state. `systemone.py` asks a decision model, which answers with probabilities itself, over HTTP.
"""
