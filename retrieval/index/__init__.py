"""A mapped snapshot, what came after it, and the ways to search both."""
