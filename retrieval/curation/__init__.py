"""What to keep of a collection: decisions, without the store and without pixels.

`hashes.py` and `duplicates.py` say which pictures, faces or persons are one, and which of them to
keep; `duplicates_page.py` shows that to people. `redundancy.py` says which frames of a track are
near-copies, `separability.py` which identities are too alike; `sampling.py` takes unlike ones.
"""
