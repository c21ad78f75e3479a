"""Which faces belong together: from edges between faces to groups. Pure; no store, no index."""
