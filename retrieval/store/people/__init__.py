"""Persons as facts: what was said of them, by whom, and how it is taken back.

In reading order: rows.py (what an operation changes, before and after), events.py (carrying changes
out, and remembering them as one event), operations.py (create, assign, reject, link, merge, split,
rename: each a set of changes), undo.py (the changes of an event turned round), reading.py (names,
lists, all that is known of one person), erasing.py (the end of a person, and its events).
"""
