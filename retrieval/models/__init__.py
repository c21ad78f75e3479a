"""Networks behind small ports: `choice` opens them, `reader` puts them in a row."""
