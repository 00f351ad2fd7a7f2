"""Checks of what this package sends."""

from tests.support.strict.fixture import strict, strict_findings

__all__ = ["strict", "strict_findings"]
