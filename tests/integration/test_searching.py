"""Searches by faces, words and both, through `Facedex`, against everything scored by plain numpy.

The face-text model is a small one of real files; sentences go through the real sentence encoder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facedex.handle import Facedex, open_facedex
from facedex.searching import DENIED, Asking, Hit
from retrieval.captions.practice import made_sentences
from retrieval.composing import Composed, spread, weights
from retrieval.errors import RefusedWordsError, UnknownNameError, UsageError
from retrieval.explain import explained, text_of
from retrieval.index.exact import cosines
from retrieval.index.fitting import COUNTED
from retrieval.search import Answer
from retrieval.store import collections as tenants
from retrieval.store.captions import NewCaption, add_caption_vectors, add_captions
from retrieval.store.holdings import Kind
from retrieval.values import FaceId, UnitRows, unit_rows
from tests.galleries import TestGallery, clustered_vectors, gallery
from tests.words import small_model

FACES, IDENTITIES, LOOKS = 300, 24, 32
TAGS = ("smiling", "glasses")
SMILING = "a smiling woman"
HAT = "somebody with a hat"


@dataclass(frozen=True)
class Known:
    """An open Facedex and what is true of its faces, 1 to FACES."""

    facedex: Facedex
    identities: npt.NDArray[Any]  # (FACES, IDENTITIES) float16, as stored
    looks: npt.NDArray[Any]  # (FACES, LOOKS)
    has_identity: npt.NDArray[np.bool_]
    has_look: npt.NDArray[np.bool_]
    tags: list[list[str]]
    captions: list[str]  # of each face
    caption_vectors: UnitRows

    def identity(self, face: int) -> UnitRows:
        return unit_rows(self.identities[face - 1])

    def spoken(self, *sentences: str) -> UnitRows:
        return self.facedex.words.encoder().of_texts(sentences)

    def best(self, means: npt.NDArray[np.float64], passing: npt.NDArray[np.bool_]) -> list[int]:
        """Faces that pass, best first."""
        order = np.lexsort((np.arange(FACES), -means))
        return [int(place) + 1 for place in order if passing[place]]


@pytest.fixture(scope="module")
def known(
    database_url_of_module: str,
    new_home: Callable[[], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Known]:
    """Faces with an identity, a look, or both; tags, a caption each; some came after a build."""
    random = np.random.default_rng(1)
    identities = clustered_vectors(FACES, dimension=IDENTITIES, clusters=30).astype("<f2")
    looks = clustered_vectors(FACES, dimension=LOOKS, clusters=10, seed=5).astype("<f2")
    tags = [[tag for tag in TAGS if random.random() < 0.4] for _ in range(FACES)]
    has_identity, has_look = random.random(FACES) > 0.1, random.random(FACES) > 0.1
    folder = small_model(tmp_path_factory.mktemp("models"), dimension=LOOKS).path
    with open_facedex(home=new_home(), database_url=database_url_of_module) as facedex:
        made = gallery(facedex.store, name="default", dimension=IDENTITIES)
        space = facedex.words.add_space("small@1", folder).space
        first = np.arange(FACES * 2 // 3)
        for places in (first, np.arange(len(first), FACES)):
            made.add(places + 1, identities[places], tags=[tags[place] for place in places])
            of_looks = TestGallery(made.store, made.collection, space)
            _add_vectors(of_looks, places[has_look[places]], looks)
            if places is first:
                facedex.build_index(Kind.FACES)
                facedex.build_index(Kind.LOOKS)
        gone = (np.flatnonzero(~has_identity) + 1).tolist()
        made.execute(
            "DELETE FROM vector WHERE space_id = :space AND face_id = ANY(:faces)",
            space=made.space.id,
            faces=gone,
        )
        captions = made_sentences(FACES)
        vectors = facedex.words.encoder().of_texts(captions)
        with facedex.store.writing() as connection:
            new = [
                NewCaption(face=FaceId(place + 1), text=one) for place, one in enumerate(captions)
            ]
            ids = add_captions(connection, new, collection=facedex.collection())
            add_caption_vectors(connection, ids, vectors, space=space)
        yield Known(facedex, identities, looks, has_identity, has_look, tags, captions, vectors)


def _add_vectors(tested: TestGallery, places: npt.NDArray[np.int64], rows: Any) -> None:
    with tested.store.writing() as connection:
        for place in places.tolist():
            connection.exec_driver_sql(
                "INSERT INTO vector (face_id, space_id, data) VALUES (%s, %s, %s)",
                (place + 1, tested.space.id, rows[place].tobytes()),
            )


def told(hits: list[Hit]) -> list[tuple[int, float | None]]:
    return [(hit.record.face, hit.similarity) for hit in hits]


# --- a face and words --------------------------------------------------------------------------


def test_a_sentence_finds_the_faces_nearest_to_it_in_the_face_text_space(known: Known) -> None:
    found = known.facedex.search(text=SMILING, count=20, recall="exact")
    near = cosines(known.looks, known.spoken(SMILING)[0])
    best = known.best(near, known.has_look)[:20]
    assert told(found.hits[0]) == [(face, near[face - 1]) for face in best]
    assert isinstance(found.answer, Answer)
    assert not found.hits[0][0].parts


def test_what_does_not_fit_is_taken_from_what_does(known: Known) -> None:
    found = known.facedex.search(text=SMILING, not_text=HAT, count=20, recall="exact")
    one, other = known.spoken(SMILING, HAT)
    near = cosines(known.looks, unit_rows(one.astype(float) - DENIED * other)[0])
    assert [hit.record.face for hit in found.hits[0]] == known.best(near, known.has_look)[:20]
    alone = known.facedex.search(not_text=HAT, count=20, recall="exact")
    opposite = cosines(known.looks, -other)
    assert [hit.record.face for hit in alone.hits[0]] == known.best(opposite, known.has_look)[:20]


@pytest.mark.parametrize("where", [None, "'smiling' = ANY(tags)"])
@pytest.mark.parametrize("recall", [0.95, "certified", "exact"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_face_with_words_is_the_weighted_mean_of_both(
    known: Known, share: float, recall: Any, where: str | None
) -> None:
    facedex = known.facedex
    probe = known.identity(7)
    found = facedex.search(probe, text=SMILING, weight=share, where=where, count=25, recall=recall)
    views = [
        facedex.opened(facedex.holding(facedex.collection(), kind)).view
        for kind in (Kind.FACES, Kind.LOOKS)
    ]
    of_face, of_words = weights(share, (spread(views[0]), spread(views[1])))
    near = cosines(known.identities, probe[0])
    said = cosines(known.looks, known.spoken(SMILING)[0])
    means = of_face * near + of_words * said
    passing = known.has_identity & known.has_look
    if where is not None:
        passing &= np.array(["smiling" in tags for tags in known.tags])
    best = known.best(means, passing)[:25]
    assert told(found.hits[0]) == [(face, means[face - 1]) for face in best]
    for hit in found.hits[0]:
        place = hit.record.face - 1
        assert hit.parts == {"identity": near[place], "text": said[place]}
    assert isinstance(found.answer, Composed)


def test_at_weight_0_and_1_it_is_the_single_question_to_the_bit(known: Known) -> None:
    facedex, probe = known.facedex, known.identity(7)
    for count in (1, 10, FACES):
        options: dict[str, Any] = {"count": count, "recall": "exact"}
        face_only = facedex.search(probe, **options).hits
        words_only = facedex.search(text=SMILING, **options).hits
        assert facedex.search(probe, text=SMILING, weight=0.0, **options).hits == face_only
        assert facedex.search(probe, text=SMILING, weight=1.0, **options).hits == words_only
    assert {hit.record.face for hit in face_only[0]} != {hit.record.face for hit in words_only[0]}


def test_a_face_without_one_of_the_vectors_is_no_hit_of_both(known: Known) -> None:
    found = known.facedex.search(known.identity(7), text=SMILING, count=FACES)
    both = np.flatnonzero(known.has_identity & known.has_look) + 1
    assert sorted(hit.record.face for hit in found.hits[0]) == both.tolist()


def test_a_look_and_a_sentence_are_one_question(known: Known) -> None:
    facedex = known.facedex
    look = facedex.probes.look_of_face(int(np.flatnonzero(known.has_look)[0]) + 1)
    found = facedex.search(like=look, text=SMILING, count=15, recall="exact")
    near = cosines(known.looks, unit_rows(look[0] + known.spoken(SMILING)[0])[0])
    assert [hit.record.face for hit in found.hits[0]] == known.best(near, known.has_look)[:15]


# --- strict and the policy ---------------------------------------------------------------------


def test_strict_words_are_a_condition_and_soft_ones_rank(known: Known) -> None:
    facedex = known.facedex
    found = facedex.search(
        text="smiling without glasses", strict=True, where="face > 50", count=FACES
    )
    passing = {
        place + 1
        for place, tags in enumerate(known.tags)
        if "smiling" in tags and "glasses" not in tags and place >= 50 and known.has_look[place]
    }
    assert {hit.record.face for hit in found.hits[0]} == passing
    assert found.where is not None
    assert facedex.count(where=found.where) >= len(passing)
    soft = facedex.search(text="smiling without glasses", where="face > 50", count=FACES)
    assert len(soft.hits[0]) == np.count_nonzero(known.has_look[50:])
    assert soft.where == "face > 50"


def test_what_strict_words_deny_is_left_out(known: Known) -> None:
    found = known.facedex.search(
        text="somebody in a garden", not_text="glasses", strict=True, count=FACES
    )
    without = {
        place + 1
        for place, tags in enumerate(known.tags)
        if "glasses" not in tags and known.has_look[place]
    }
    assert {hit.record.face for hit in found.hits[0]} == without


@pytest.mark.parametrize("sentence", ["text", "not_text", "words"])
def test_every_sentence_is_asked_of_the_policy(known: Known, sentence: str) -> None:
    with pytest.raises(RefusedWordsError, match="trustworthy"):
        known.facedex.search(**{sentence: "a trustworthy man"})
    if sentence != "words":
        with pytest.raises(RefusedWordsError, match="trustworthy"):
            known.facedex.search_captions(**{sentence: "a trustworthy man"})


# --- captions ----------------------------------------------------------------------------------


def test_captions_are_found_by_sentences_and_by_looks(known: Known) -> None:
    facedex = known.facedex
    halves = known.caption_vectors.astype("<f2")
    for asked, query in (
        ({"text": SMILING}, known.spoken(SMILING)[0]),
        ({"like": unit_rows(known.looks[3])}, unit_rows(known.looks[3])[0]),
    ):
        found = facedex.search_captions(count=12, recall="exact", **asked)
        near = cosines(halves, query)
        order = np.lexsort((np.arange(FACES), -near))[:12]
        assert [hit.caption.text for hit in found.hits] == [known.captions[i] for i in order]
        assert [hit.caption.face for hit in found.hits] == (order + 1).tolist()
        assert [hit.similarity for hit in found.hits] == near[order].tolist()


def test_captions_are_filtered_like_faces(known: Known) -> None:
    found = known.facedex.search_captions(text=SMILING, where="'glasses' = ANY(tags)", count=FACES)
    wearing = {place + 1 for place, tags in enumerate(known.tags) if "glasses" in tags}
    assert {hit.caption.face for hit in found.hits} == wearing


def test_a_caption_is_not_found_by_an_identity(known: Known) -> None:
    with pytest.raises(UsageError, match="look"):
        known.facedex.search_captions(face=known.identity(1))


# --- words of captions -------------------------------------------------------------------------


def test_words_alone_find_the_captions_that_hold_them(known: Known) -> None:
    found = known.facedex.search(words="earrings", count=FACES)
    holders = [place + 1 for place, one in enumerate(known.captions) if "earrings" in one.lower()]
    assert sorted(hit.record.face for hit in found.hits[0]) == holders
    assert all(hit.similarity is None and hit.fused is not None for hit in found.hits[0])
    assert found.worded == len(holders)
    assert found.answer is None


def test_words_and_vectors_are_fused_by_reciprocal_rank(known: Known) -> None:
    facedex = known.facedex
    where = "'smiling' = ANY(tags)"
    options: dict[str, Any] = {"where": where, "recall": "exact"}
    vectors = facedex.search(text=SMILING, count=100, **options).hits[0]
    words = facedex.search(words="earrings", count=50, **options).hits[0]
    assert words
    sums: dict[int, float] = {}
    for ranking in (vectors, words):
        for rank, hit in enumerate(ranking, start=1):
            face = hit.record.face
            sums[face] = sums.get(face, 0.0) + 1 / (60 + rank)
    found = facedex.search(text=SMILING, words="earrings", count=30, **options).hits[0]
    assert [hit.record.face for hit in found] == sorted(sums, key=lambda one: (-sums[one], one))[
        :30
    ]
    near = cosines(known.looks, known.spoken(SMILING)[0])
    for hit in found:
        place = hit.record.face - 1
        assert hit.fused == sums[hit.record.face]
        assert hit.similarity == (near[place] if known.has_look[place] else None)
        assert "smiling" in known.tags[place]


def test_words_beside_a_face_and_a_sentence_tell_every_similarity(known: Known) -> None:
    found = known.facedex.search(
        known.identity(7), text=SMILING, words="earrings", count=20, recall="exact"
    )
    plain = known.facedex.search(known.identity(7), text=SMILING, count=FACES, recall="exact")
    known_of = {hit.record.face: (hit.similarity, hit.parts) for hit in plain.hits[0]}
    for hit in found.hits[0]:
        assert (hit.similarity, hit.parts) == known_of.get(hit.record.face, (None, {}))


def test_hits_of_fused_rankings_keep_what_was_asked_of_them(known: Known) -> None:
    found = known.facedex.search(
        text=SMILING, words="earrings", count=FACES, min_similarity=0.1, recall="exact"
    )
    assert found.hits[0]
    assert all(hit.similarity is not None and hit.similarity >= 0.1 for hit in found.hits[0])


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "name a face"),
        ({"text": " "}, "empty"),
        ({"text": "a", "weight": 1.5}, "weight"),
        ({"face": unit_rows(np.eye(3)), "text": "a"}, "one face"),
        ({"text": "x" * 10_000}, "bytes"),
    ],
)
def test_what_means_nothing_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Asking(**asked)


def test_a_sentence_needs_a_face_text_space(database_url: str, home: Path) -> None:
    with open_facedex(home=home, database_url=database_url) as facedex:
        gallery(facedex.store, name="default").add([1], np.eye(8)[:1])
        with pytest.raises(UnknownNameError, match="face-text space"):
            facedex.search(text="smiling")


# --- explaining --------------------------------------------------------------------------------


def test_both_plans_are_explained(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.composing.SCANNED_SHARE", 1)
    monkeypatch.setattr("retrieval.composing.FIRST", 2)
    monkeypatch.setattr("retrieval.composing.FIRST_MIN", 2)
    found = known.facedex.search(known.identity(7), text=SMILING, weight=0.1, count=2)
    assert isinstance(found.answer, Composed)
    values = explained(found.answer)
    assert values["strategy"] == "compose"
    assert [part["survivors"] for part in values["parts"]] == [
        np.count_nonzero(known.has_identity),
        np.count_nonzero(known.has_look),
    ]
    assert values["rounds"] >= 1
    assert 2 <= values["candidates"] < FACES
    assert sum(values["weights"]) == 1.0
    assert text_of(values).count("tier ") == 3


# --- what indexes are measured with ------------------------------------------------------------


def test_looks_are_measured_with_captions_and_captions_with_looks(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.searching.SENTENCES", 200)
    facedex = known.facedex

    def asked(kind: Kind) -> Callable[[], UnitRows | None]:
        return facedex.searching.questions_like(facedex.holding(facedex.collection(), kind))

    assert asked(Kind.FACES)() is None
    of_looks, of_captions = asked(Kind.LOOKS)(), asked(Kind.CAPTIONS)()
    assert of_looks is not None
    assert of_captions is not None
    assert _all_among(of_looks, known.caption_vectors)
    assert _all_among(of_captions, unit_rows(known.looks[known.has_look]))


def test_a_build_of_looks_measures_with_sentences_where_there_are_lists(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    facedex = known.facedex
    index = facedex.opened(facedex.holding(facedex.collection(), Kind.LOOKS))
    looks = np.count_nonzero(known.has_look)
    monkeypatch.setattr("facedex.searching.SENTENCES", 200)
    pairs = []
    for least in (100, 1_000):  # rows from which on there are lists
        monkeypatch.setattr("retrieval.index.lists.LISTED_ROWS_MIN", least)
        facedex.build_index(Kind.LOOKS)
        index.refresh()
        assert index.coding is not None
        pairs.append(index.coding.rule.measured.pairs)
    assert pairs == [COUNTED * (looks - 1) + COUNTED * looks, COUNTED * (looks - 1)]


def test_looks_without_captions_are_measured_with_made_sentences(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facedex.searching.SENTENCES", 1000)  # more than there are captions
    facedex = known.facedex
    looks = facedex.holding(facedex.collection(), Kind.LOOKS)
    asked = facedex.searching.questions_like(looks)()
    assert asked is not None
    assert _all_among(asked, known.spoken(*made_sentences(1000)))


def _all_among(rows: UnitRows, others: UnitRows) -> bool:
    assert len(rows) >= 100
    return bool(((rows @ others.T).max(axis=1) > 1 - 1e-4).all())


def test_made_sentences_are_always_the_same_and_differ() -> None:
    sentences = made_sentences(100)
    assert sentences == made_sentences(100)
    assert len(set(sentences)) > 95


def test_the_spaces_of_both_kinds_are_the_collections(known: Known) -> None:
    facedex = known.facedex
    with facedex.store.reading() as connection:
        tenant = facedex.collection()
        assert tenants.text_space_of(connection, tenant).name == "small@1"
