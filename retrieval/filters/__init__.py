"""What faces a question is about: one tree of values, read from text or JSON.

`parse` and `json_form` read and write the tree, `evaluate` finds its rows in memory, and
`store.where` writes it as SQL. Only the light tree is named here; import the rest from its module.
"""

from retrieval.filters.tree import Filter, all_of, any_of, bind, negate

__all__ = ["Filter", "all_of", "any_of", "bind", "negate"]
