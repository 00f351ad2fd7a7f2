"""Compares this package with those of others: the packages, a server of their HTTP protocols for them, and the pages."""
