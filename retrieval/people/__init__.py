"""Persons: what they look like on the whole, and what a similarity says about who somebody is."""
