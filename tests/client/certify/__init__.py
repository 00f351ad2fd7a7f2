"""Tests of `certify`."""
