"""Tests of `client/predictions/call_repair/`."""
