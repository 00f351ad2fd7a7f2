"""What real servers said and real models wrote, and the page that says which rules they ask for.

The corpus is in `tests/real/`; its README describes the format.
"""
