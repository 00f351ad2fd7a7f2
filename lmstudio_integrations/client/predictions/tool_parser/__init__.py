"""Parses tool calls that the server left in the text of a response. Pure: text goes in, calls and events come out."""
