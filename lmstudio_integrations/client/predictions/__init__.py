"""Predictions: what `respond`, `complete` and `act` request, and how the response is read."""
