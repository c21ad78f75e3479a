"""Facedex: a vector search and face-retrieval database.

>>> import facedex
>>> with facedex.open(home="photos.facedex") as db:  # doctest: +SKIP
...     db.ingest(["photos/"])
...     answer = db.search(db.probe_of_picture("ann.jpg"), where="quality >= 0.6", count=10)

This package is what users import. It re-exports; nothing heavy is loaded before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from facedex.handle import open_facedex as open  # noqa: A004
    from retrieval.library import Index

__all__ = ["Facedex", "Index", "open"]

_HOMES = {
    "Facedex": ("facedex.handle", "Facedex"),
    "Index": ("retrieval.library", "Index"),
    "open": ("facedex.handle", "open_facedex"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'facedex' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
