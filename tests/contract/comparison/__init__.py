"""Compares this package with those of others: what they are, a server of their HTTP protocols, and the pages."""
