"""Listens to what the client reports, and makes spans and metrics of it. Nothing else knows OpenTelemetry."""
