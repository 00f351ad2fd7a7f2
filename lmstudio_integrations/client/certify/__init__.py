"""`certify`: asks a loaded model what its users depend on, and what has changed since an earlier card.

`run.py` chooses the instance, asks the rows and compares. `rows/` has a file for each row of the card, with its
questions; a new row is a new file, and its line in `rows/__init__.py`. `asking.py` is what a question may use, and
`difference.py` the statistics. The card itself is `types/cards.py`.
"""
