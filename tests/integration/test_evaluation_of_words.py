"""Words are evaluated on what the store holds: which faces, whose captions, which groups."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from facedex.handle import Facedex, open_facedex
from retrieval.errors import UnknownNameError, UsageError
from retrieval.evaluation.captions import rank_captions, skew_of
from retrieval.store.captions import NewCaption, add_caption_vectors, add_captions
from retrieval.values import FaceId, UnitRows, unit_rows
from tests.galleries import TestGallery, gallery, unit_vectors
from tests.words import small_model

FACES, LOOKS = 240, 32
CAPTIONED = 200  # of them have captions; every second one two


@dataclass(frozen=True)
class Known:
    """An open Facedex, and what is true of its faces, 1 to FACES."""

    facedex: Facedex
    looks: UnitRows
    persons: np.ndarray  # of each face; a negative number: nobody knows who
    owners: list[int]  # rows
    sentences: list[str]
    texts: UnitRows
    genders: list[str]
    tags: list[list[str]]


def halves(rows: np.ndarray) -> UnitRows:
    """As the store gives them back."""
    return unit_rows(rows.astype("<f2"))


@pytest.fixture
def known(database_url: str, home: Path, tmp_path: Path) -> Iterator[Known]:
    random = np.random.default_rng(3)
    looks = unit_vectors(FACES, dimension=LOOKS, seed=2)
    tags = [["hat"] if random.random() < 0.3 else ["beard"] for _ in range(FACES)]
    genders = [["female", "male"][number % 3 == 0] for number in range(FACES)]
    owners = [row for row in range(CAPTIONED) for _ in range(1 + row % 2)]
    sentences = [f"sentence {number % 150}" for number in range(len(owners))]
    raw = looks[owners] + 0.25 * random.normal(size=(len(owners), LOOKS))
    with open_facedex(home=home, database_url=database_url) as facedex:
        made = gallery(facedex.store, name="default")
        space = facedex.words.add_space(
            "small@1", small_model(tmp_path, dimension=LOOKS).path
        ).space
        of_looks = TestGallery(made.store, made.collection, space)
        of_looks.add(range(1, FACES + 1), looks, tags=tags)
        made.execute(
            "UPDATE face SET gender = CASE WHEN (id - 1) % 3 = 0 THEN 'male' ELSE 'female' END"
        )
        for _ in range(40):
            made.execute("INSERT INTO person (collection_id) VALUES (:c)", c=made.collection.id)
        made.execute(
            "UPDATE face SET person_id = (SELECT min(id) FROM person) + id % 40 WHERE id % 4 > 0"
        )
        new = [
            NewCaption(face=FaceId(row + 1), text=f"{sentence} of {row}" if row % 2 else sentence)
            for row, sentence in zip(owners, sentences, strict=True)
        ]
        sentences = [one.text for one in new]
        with facedex.store.writing() as connection:
            ids = add_captions(connection, new, collection=facedex.collection())
            add_caption_vectors(connection, ids, unit_rows(raw), space=space)
        rows = np.arange(FACES)
        persons = np.where((rows + 1) % 4 > 0, (rows + 1) % 40, -1 - rows)
        yield Known(
            facedex,
            halves(looks),
            persons,
            owners,
            sentences,
            halves(unit_rows(raw)),
            genders,
            tags,
        )


def test_captions_are_ranked_as_the_store_holds_them(known: Known) -> None:
    expected = rank_captions(
        known.looks,
        known.texts,
        sentences=known.sentences,
        owners=np.array(known.owners),
        persons=known.persons,
    )
    found = known.facedex.evaluation.captions()
    assert (found.faces, found.persons, found.captions) == (FACES, 90, len(known.owners))
    for one, other in (
        (found.text_to_face, expected.text_to_face),
        (found.face_to_text, expected.face_to_text),
    ):
        assert (one.queries, one.gallery) == (other.queries, other.gallery)
        assert one.median_rank.value == other.median_rank.value
        assert {rank: share.value for rank, share in one.recall_at.items()} == {
            rank: share.value for rank, share in other.recall_at.items()
        }
    assert 0.2 < found.text_to_face.recall_at[1].value < 1


def test_a_filter_chooses_faces_and_their_captions(known: Known) -> None:
    kept = [row for row in range(FACES) if known.genders[row] == "male"]
    told = [place for place, row in enumerate(known.owners) if row in kept]
    expected = rank_captions(
        UnitRows(known.looks[kept]),
        UnitRows(known.texts[told]),
        sentences=[known.sentences[place] for place in told],
        owners=np.array([kept.index(known.owners[place]) for place in told]),
        persons=known.persons[kept],
    )
    found = known.facedex.evaluation.captions(where="gender = 'male'")
    assert (found.faces, found.captions) == (len(kept), len(told))
    assert found.text_to_face.recall_at[1].value == expected.text_to_face.recall_at[1].value


def test_free_sentences_are_right_for_the_faces_that_pass_their_filter(
    known: Known, tmp_path: Path
) -> None:
    file = tmp_path / "sentences.json"
    asked = [
        {"sentence": "somebody with a hat", "where": "'hat' = ANY(tags)"},
        {"sentence": "a bearded man", "attributes": {"No_Beard": 0, "Wearing_Hat": 0}},
        {"sentence": "nobody", "where": "quality > 2"},
    ]
    file.write_text(json.dumps(asked))
    report = known.facedex.evaluation.sentences(file)
    encoder = known.facedex.words.encoder()
    scores = encoder.of_texts([str(one["sentence"]) for one in asked]) @ known.looks.T
    hats = np.array(["hat" in tags for tags in known.tags])
    assert report.refused == ("no face is right for 'nobody'",)
    for one, similar, right in zip(report.sentences, scores, (hats, ~hats), strict=False):
        assert one.relevant == right.sum()
        assert one.precision.value == right[np.argsort(-similar)[:10]].mean()


def test_skew_is_that_of_the_groups_of_a_field_whatever_the_sentence(known: Known) -> None:
    sentence = "a criminal"
    (found,) = known.facedex.evaluation.skew([sentence], "gender", count=40, persons_min=10)
    similar = known.looks @ known.facedex.words.encoder().of_texts([sentence])[0]
    expected = skew_of(
        similar,
        sentence=sentence,
        groups=known.genders,
        persons=known.persons,
        count=40,
        persons_min=10,
    )
    assert [(one.name, one.faces, one.found) for one in found.groups] == [
        (one.name, one.faces, one.found) for one in expected.groups
    ]
    assert {one.name for one in found.groups} == {"female", "male"}
    with pytest.raises(UsageError, match="says who somebody is"):
        known.facedex.evaluation.skew([sentence], "person")


def test_what_is_missing_is_told(known: Known, tmp_path: Path) -> None:
    evaluation = known.facedex.evaluation
    with pytest.raises(UsageError, match="no face of collection 'default' passes"):
        evaluation.captions(where="quality > 2")
    with pytest.raises(UsageError, match="no caption"):
        evaluation.captions(where=f"face > {CAPTIONED}")
    file = tmp_path / "sentences.json"
    for content, said in (
        ("{", "is no JSON list"),
        ('[{"sentence": "x"}]', "is no JSON list"),
        ('[{"sentence": "x", "attributes": {"Attractive": 1}}]', "'Attractive' is neither"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=said):
            evaluation.sentences(file)


def test_a_collection_without_a_face_text_space_says_what_to_do(
    database_url: str, home: Path
) -> None:
    with open_facedex(home=home, database_url=database_url) as facedex:
        gallery(facedex.store, name="default")
        with pytest.raises(UnknownNameError, match="has no face-text space"):
            facedex.evaluation.captions()
