"""Public types: snake_case in Python, camelCase on the wire."""
