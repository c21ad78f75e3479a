"""Sentences about faces: stored, found by their words, and gone with their face."""

import pytest

from retrieval.errors import UnknownNameError, UsageError
from retrieval.store.collections import (
    collection_named,
    collection_or_new,
    search_in,
    set_text_space,
    space_or_new,
    text_space_of,
)
from retrieval.store.database import Store
from retrieval.values import Space, SpaceId

DIMENSION = 8


def space(name: str) -> Space:
    return Space(
        id=SpaceId(0),
        name=name,
        dimension=DIMENSION,
        model_sha256=None,
        licence="none",
        commercial=True,
    )


def test_a_collection_has_at_most_one_face_text_space_and_says_what_to_do_without(
    store: Store,
) -> None:
    with store.writing() as connection:
        identity, words = (space_or_new(connection, space(name)) for name in ("one@1", "words@1"))
        collection = collection_or_new(connection, "gallery")
        collection = search_in(connection, collection, identity)
        with pytest.raises(UnknownNameError, match=r"no face-text space.*`facedex space add"):
            text_space_of(connection, collection)
        with pytest.raises(UsageError, match="'one@1' is the space of identities"):
            set_text_space(connection, collection, identity)
        made = set_text_space(connection, collection, words)
        assert made == collection_named(connection, "gallery")
        assert text_space_of(connection, made) == words
        assert (made.space_id, made.text_space_id) == (identity.id, words.id)
        assert set_text_space(connection, made, None) == collection
