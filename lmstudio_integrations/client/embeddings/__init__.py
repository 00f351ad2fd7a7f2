"""Vectors of texts, also of texts that are too long for the model."""
