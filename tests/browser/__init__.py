"""Opens the built site in a headless browser."""
