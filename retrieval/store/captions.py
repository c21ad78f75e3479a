"""Captions: sentences about a face, found by their words and, in a face-text space, by meaning.

A face has any number of captions, each sentence once. Their text never changes: what was written
differently is another caption, so a vector is always that of the text beside it. Words are matched
by PostgreSQL's full-text search under the same filters that faces are searched with.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    cast,
    exists,
    func,
    not_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import REAL, array

from retrieval.errors import UnknownNameError, UnusableVectorError
from retrieval.filters.tree import Filter
from retrieval.store import tables
from retrieval.store.where import FACES_WITH_PERSONS, where
from retrieval.values import CaptionId, Collection, FaceId, Space, UnitRows

STATED: Final = "stated"  # the provider of captions that came with the data
# Of the migration, too. Asked fifteen free sentences over the full captions of LFW, ten hits hold
# 9.1 right ones (mean average precision .75); with words as they are 8.5 (.70), and where every
# word has to be there 6.6 (.41).
LANGUAGE: Final = "english"
_WORD: Final = re.compile(r'(-?)("[^"]*"?|[^\s"]+)')
_INSERT: Final = text("""
    INSERT INTO caption (collection_id, face_id, text, provider)
    SELECT face.collection_id, face.id, given.text, given.provider
    FROM unnest(CAST(:faces AS bigint[]), CAST(:texts AS text[]), CAST(:providers AS text[]))
        WITH ORDINALITY AS given (face, text, provider, place)
        JOIN face ON face.id = given.face AND face.collection_id = :collection
    -- Faces in one order for all writers, who take turns at each: two of them never deadlock.
    ORDER BY face.id, place
    FOR NO KEY UPDATE OF face
    ON CONFLICT (face_id, md5(text)) DO NOTHING
""")
_IDS: Final = text("""
    SELECT caption.id
    FROM unnest(CAST(:faces AS bigint[]), CAST(:texts AS text[]))
        WITH ORDINALITY AS given (face, text, place)
        JOIN caption ON caption.face_id = given.face AND md5(caption.text) = md5(given.text)
            AND caption.collection_id = :collection
    ORDER BY place
""")
_INSERT_VECTORS: Final = text("""
    INSERT INTO caption_vector (caption_id, space_id, data)
    SELECT caption.id, :space, given.data
    FROM unnest(CAST(:captions AS bigint[]), CAST(:vectors AS bytea[])) AS given (id, data)
        JOIN caption USING (id)
    ORDER BY caption.id
    FOR KEY SHARE OF caption  -- one that is deleted meanwhile is left out
    ON CONFLICT (caption_id, space_id) DO UPDATE SET data = excluded.data
        WHERE caption_vector.data <> excluded.data
""")
_WITHOUT_VECTOR: Final = text("""
    SELECT id, face_id, text, provider
    FROM caption
    WHERE collection_id = :collection AND id > :after AND NOT EXISTS (
        SELECT FROM caption_vector WHERE caption_id = caption.id AND space_id = :space
    )
    ORDER BY id
    LIMIT :count
""")
_COUNT_WITHOUT_VECTOR: Final = text("""
    SELECT count(*)
    FROM caption
    WHERE collection_id = :collection AND NOT EXISTS (
        SELECT FROM caption_vector WHERE caption_id = caption.id AND space_id = :space
    )
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCaption:
    """A sentence to be stored."""

    face: FaceId
    text: str
    provider: str = STATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A stored sentence about a face."""

    id: CaptionId
    face: FaceId
    text: str
    provider: str  # STATED, or what made it


def add_captions(
    connection: Connection, captions: Sequence[NewCaption], *, collection: Collection
) -> list[CaptionId]:
    """Store captions that are not there yet; give the number of each, new or known, in order.

    Raises:
        UnknownNameError: a face is not in the collection; nothing was stored then.
    """
    if not captions:
        return []
    given = {
        "collection": collection.id,
        "faces": [one.face for one in captions],
        "texts": [one.text for one in captions],
        "providers": [one.provider for one in captions],
    }
    connection.execute(_INSERT, given)
    # A statement of its own: it sees what another writer stored since the first one began.
    ids = [CaptionId(one) for one in connection.scalars(_IDS, given)]
    if len(ids) < len(captions):
        raise UnknownNameError(f"a caption's face is not in collection '{collection.name}'")
    return ids


def captions_of(
    connection: Connection, faces: Iterable[FaceId], *, collection: Collection
) -> dict[FaceId, list[Caption]]:
    """The captions of these faces in the order they came; a face without one is left out."""
    chosen = tables.caption.c.face_id == func.any(list(faces))
    rows = connection.execute(_captions(collection).where(chosen).order_by(tables.caption.c.id))
    found: dict[FaceId, list[Caption]] = {}
    for one in map(_caption, rows):
        found.setdefault(one.face, []).append(one)
    return found


def caption_records(
    connection: Connection, ids: Iterable[CaptionId], *, collection: Collection
) -> dict[CaptionId, Caption]:
    """The captions of these numbers; one that is gone meanwhile is left out."""
    chosen = tables.caption.c.id == func.any(list(ids))
    rows = connection.execute(_captions(collection).where(chosen))
    return {one.id: one for one in map(_caption, rows)}


def matching(
    connection: Connection,
    words: str,
    *,
    collection: Collection,
    filter_: Filter | None,
    count: int,
) -> list[FaceId]:
    """At most `count` faces whose captions hold the words, best first.

    One word is enough; captions with all of them come first, those that hold them closer together
    before others (cover density). A face ranks by its best caption, equal ranks by face.

    Args:
        connection: an open transaction.
        words: in any case; those that differ only in their English endings are the same, and small
            English words count for nothing. "In quotes" they are a phrase, and a caption with a
            `-word` is no answer, as in web searches.
        collection: whose faces.
        filter_: None: every face.
        count: of faces.
    """
    asked = _asked(words)
    statement = _matching(asked, collection=collection, filter_=filter_).limit(count)
    all_of_them = statement.where(
        tables.caption.c.document.bool_op("@@")(_query(" ".join(asked.wanted)))
    )
    found = list(connection.scalars(all_of_them))
    if len(found) < count and len(asked.wanted) > 1:
        found = list(connection.scalars(statement))  # the same first, and others behind
    return [FaceId(one) for one in found]


def has_caption(words: str) -> ColumnElement[bool]:
    """Whether a face has a caption that holds these words, all of them unless `or` stands between.

    Otherwise they are read as `matching` reads them.
    """
    document = tables.caption.c.document
    return exists(
        select(tables.caption.c.id).where(
            tables.caption.c.face_id == tables.face.c.id, document.bool_op("@@")(_query(words))
        )
    )


def add_caption_vectors(
    connection: Connection, captions: Sequence[CaptionId], vectors: UnitRows, *, space: Space
) -> None:
    """Store what captions are in a space, in the place of what they were there.

    One that was deleted meanwhile is left out.

    Raises:
        UnusableVectorError: the vectors are not (n, d) of the space.
    """
    if vectors.shape != (len(captions), space.dimension):
        raise UnusableVectorError(
            f"{len(captions)} captions need vectors of {space.dimension} dimensions in"
            f" '{space.name}'; given are {vectors.shape}"
        )
    halves = np.ascontiguousarray(vectors, dtype="<f2")
    connection.execute(
        _INSERT_VECTORS,
        {
            "space": space.id,
            "captions": list(captions),
            "vectors": [row.tobytes() for row in halves],
        },
    )


def captions_without_vector(
    connection: Connection,
    *,
    collection: Collection,
    space: Space,
    after: CaptionId,
    count: int,
) -> list[Caption]:
    """At most `count` captions with a number above `after` that the space lacks, by number."""
    wanted = {"collection": collection.id, "space": space.id, "after": after, "count": count}
    return [_caption(row) for row in connection.execute(_WITHOUT_VECTOR, wanted)]


def count_captions_without_vector(
    connection: Connection, *, collection: Collection, space: Space
) -> int:
    """How many captions the space lacks."""
    wanted = {"collection": collection.id, "space": space.id}
    return int(connection.execute(_COUNT_WITHOUT_VECTOR, wanted).scalar_one())


class _Asked(NamedTuple):
    """Words and phrases of a question."""

    wanted: list[str]
    unwanted: list[str]


def _asked(words: str) -> _Asked:
    """What is asked for, word by word.

    >>> _asked('a hat or -"dark glasses" smiling')
    _Asked(wanted=['a', 'hat', 'smiling'], unwanted=['"dark glasses"'])
    """
    asked = _Asked([], [])
    for minus, word in _WORD.findall(words.replace("\0", " ")):
        if word.lower() != "or":  # it is what a list of words means anyway
            (asked.unwanted if minus else asked.wanted).append(word)
    return asked


def _query(words: str) -> Any:
    # The configuration stands there, not bound: only then is the query a constant to the planner.
    return func.websearch_to_tsquery(text(f"'{LANGUAGE}'"), words)


def _matching(asked: _Asked, *, collection: Collection, filter_: Filter | None) -> Select[Any]:
    """The faces that hold a word, best first."""
    document = tables.caption.c.document
    some, unwanted = (_query(" or ".join(words)) for words in asked)
    every = _query(" ".join(asked.wanted))
    has_all = cast(cast(document.bool_op("@@")(every), Integer), REAL)
    rank = array([has_all, *(func.ts_rank_cd(document, query) for query in (every, some))])
    conditions = [] if filter_ is None else [where(filter_)]
    return (
        select(tables.face.c.id)
        .select_from(FACES_WITH_PERSONS)
        .join(tables.caption, tables.caption.c.face_id == tables.face.c.id)
        .where(
            tables.face.c.collection_id == collection.id,
            tables.caption.c.collection_id == collection.id,
            document.bool_op("@@")(some),
            not_(document.bool_op("@@")(unwanted)),
            *conditions,
        )
        .group_by(tables.face.c.id)
        .order_by(func.max(rank).desc(), tables.face.c.id)
    )


def _captions(collection: Collection) -> Any:
    columns = (tables.caption.c[name] for name in ("id", "face_id", "text", "provider"))
    return select(*columns).where(tables.caption.c.collection_id == collection.id)


def _caption(row: Row[Any]) -> Caption:
    return Caption(
        id=CaptionId(row.id), face=FaceId(row.face_id), text=row.text, provider=row.provider
    )
