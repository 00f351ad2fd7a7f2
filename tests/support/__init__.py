"""What the tests of several folders use: servers, gates, listeners and tables. Nothing here is a test."""
