"""The integrations that the suites run on, and the HTTP server of those that do not speak the native protocol."""
