"""Measurements of whole paths, each a command that prints one JSON line."""
