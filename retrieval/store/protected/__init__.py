"""Protected lists: persons whose pictures are to be noticed, out of everybody else's sight.

`lists.py` says whether a collection has one and how far it was matched, `gallery.py` holds its
persons, `alerts.py` gives the faces that were not matched yet and keeps what was found. All rows
lie in the schema `protected`; no statement outside of this package names it.
"""
