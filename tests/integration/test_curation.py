"""Data sets of a real store: what rules ask of pictures, captions and marks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from indexer.bulk.importing import ImportRequest
from retrieval.curation.labels import Kind
from retrieval.errors import UsageError
from retrieval.store.captions import NewCaption, add_captions
from retrieval.store.database import Store
from tests.labelled import people
from tests.people import faces_of, gallery

WRONG = {20: "P31", 130: "P2", 199: "P5"}  # rows of faces, and the names they are given
PICTURES = [["Ann"], ["Ann", "Bob"], ["Ann", None], ["Cid"], ["Ann"], [None]]


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Iterator[Facedex]:
    """Six pictures with eight faces; the box of each covers 30 x 40 of 100 x 200 pixels."""
    gallery(store, PICTURES)
    with open_facedex(home=tmp_path, database_url=store.url, collection="gallery") as facedex:
        yield facedex


def fates(facedex: Facedex, rules: str) -> dict[str, int]:
    """How many faces each rule dropped, and how many stayed."""
    found = facedex.curation.curate(rules)
    dropped = found.dropped["rule"].to_pylist()
    assert found.kept.num_rows + len(dropped) == 8
    return {name: dropped.count(name) for name in sorted(set(dropped))} | {
        "kept": found.kept.num_rows
    }


def test_rules_about_pictures_count_what_lies_in_them(opened: Facedex) -> None:
    alone = '[[rule]]\nname = "alone"\nfaces_per_image = 1\n'
    assert fates(opened, alone) == {"alone": 4, "kept": 4}
    share = '[[rule]]\nname = "share"\narea_share = {{min = {}}}\n'
    assert fates(opened, share.format(0.0599)) == {"kept": 8}
    assert fates(opened, share.format(0.0601)) == {"kept": 0, "share": 8}
    side = '[[rule]]\nname = "side"\nimage_side_px = {min = 101}\n'
    assert fates(opened, side) == {"kept": 0, "side": 8}


def test_rules_see_what_the_rules_before_them_left(opened: Facedex) -> None:
    named = '[[rule]]\nname = "named"\nwhere = "person IS NOT NULL"\n'
    alone = '[[rule]]\nname = "alone"\nfaces_per_image = 1\n'
    assert fates(opened, named + alone) == {"named": 2, "alone": 2, "kept": 4}
    whole = named.replace('NULL"', 'NULL"\nwhole_image = true')
    assert fates(opened, whole + alone) == {"named": 3, "alone": 2, "kept": 3}


def test_words_are_looked_for_in_captions(opened: Facedex, store: Store) -> None:
    [ann, *_], [cid] = faces_of(store, "Ann"), faces_of(store, "Cid")
    said = [
        NewCaption(face=ann, text="A smiling woman's portrait"),
        NewCaption(face=cid, text="it's 100 % a man, at the beach"),
    ]
    with store.writing() as connection:
        add_captions(connection, said, collection=opened.collection())
    rule = '[[rule]]\nname = "told"\ncaptions = "{}"\n'
    assert fates(opened, rule.format("portraits"))["kept"] == 1
    assert fates(opened, rule.format("woman or man"))["kept"] == 2
    assert fates(opened, rule.format("man -beach"))["kept"] == 0
    assert fates(opened, rule.format("it's % man"))["kept"] == 1


def test_marked_duplicates_go_and_unknown_tags_stay(opened: Facedex, store: Store) -> None:
    with store.writing() as connection:
        connection.execute(
            text("UPDATE face SET tags = ARRAY['hat', 'duplicate'] WHERE id = :face"),
            {"face": faces_of(store, "Cid")[0]},
        )
    rule = '[[rule]]\nname = "once"\nduplicates = false\n'
    assert fates(opened, rule) == {"kept": 7, "once": 1}


def test_a_cut_is_audited_by_its_number_of_faces(opened: Facedex, store: Store) -> None:
    opened.curation.curate('[[rule]]\nname = "a"\nquality = {min = 0}\n')
    with store.reading() as connection:
        told = connection.execute(text("SELECT detail FROM audit WHERE action = 'curate'")).scalar()
    assert told == {"faces": 8}


def parts_of(facedex: Facedex, **options: Any) -> dict[int, str]:
    """The part of each face, where only what is nearly equal is alike."""
    options = {"above": 0.999, "shares": {"a": 0.5, "b": 0.5}, **options}
    found = facedex.curation.partition(**options)
    return dict(zip(*(found.table[name].to_pylist() for name in ("face", "part")), strict=True))


def test_who_is_seen_in_one_picture_is_in_one_part(opened: Facedex, store: Store) -> None:
    for seed in range(8):
        parts = parts_of(opened, seed=seed)
        ann, bob, cid = (
            [parts[one] for one in faces_of(store, of)] for of in ("Ann", "Bob", "Cid")
        )
        assert set(ann) == set(bob)  # the second picture shows both
        assert set(cid) != set(ann)
        assert len(parts) == 6


def test_linked_persons_are_in_one_part(opened: Facedex) -> None:
    opened.people.link("Ann", "Cid")
    assert set(parts_of(opened).values()) == {"a"}


def test_faces_of_nobody_stay_with_their_picture_and_with_those_alike(
    opened: Facedex, store: Store
) -> None:
    beside, alone = faces_of(store, None)
    [cid] = faces_of(store, "Cid")
    asked = {"a": 0.7, "b": 0.15, "c": 0.15}

    def dealt(seed: int) -> dict[int, str]:
        return parts_of(opened, shares=asked, unlabelled="cluster-alone", seed=seed)

    for seed in range(4):
        parts = dealt(seed)
        assert len(parts) == 8
        assert parts[beside] == parts[faces_of(store, "Ann")[0]]
        assert parts[alone] != parts[cid]
    with store.writing() as connection:
        connection.execute(
            text(
                "UPDATE vector SET data = (SELECT data FROM vector WHERE face_id = :cid)"
                " WHERE face_id = :alone"
            ),
            {"cid": cid, "alone": alone},
        )
    for seed in range(4):
        parts = dealt(seed)
        assert parts[alone] == parts[cid]


def test_parts_are_kept_as_an_attribute_and_written_anew(opened: Facedex) -> None:
    curation = opened.curation
    first = curation.partition({"a": 0.5, "b": 0.5}, above=0.999)
    assert curation.keep_parts(first, "part")[0] == 6
    assert curation.keep_parts(first, "part")[0] == 0
    told = {name: opened.count(where=f"part = '{name}'") for name in ("a", "b")}
    assert told == {name: len(faces) for name, faces in first.faces_of_parts().items()}
    only = curation.partition({"a": 0.5, "c": 0.5}, above=0.999, where="person = 'Cid'")
    assert curation.keep_parts(only, "part")[0] in (5, 6)
    assert opened.count(where="part IS NOT NULL") == 1


@pytest.fixture
def noisy(store: Store, tmp_path: Path) -> Iterator[Facedex]:
    """340 faces of 140 persons: three wrong labels, one person split, one contradicting copy."""
    faces = people([6] * 40 + [1] * 100, noise=0.5, seed=3, dimension=64)
    named = [f"P{person}" for person in faces.persons]
    for row, name in WRONG.items():
        named[row] = name
    named[237:240] = ["Another39"] * 3
    vectors = np.concatenate([faces.vectors, faces.vectors[[100]]])
    table = pa.table(
        {
            "id": [str(row) for row in range(len(vectors))],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 64),
            "person": [*named, named[100]],
            "quality": np.full(len(vectors), 0.8),
            "gender": [*["female"] * len(named), "male"],
        }
    )
    pq.write_table(table, tmp_path / "noisy.parquet")
    with open_facedex(home=tmp_path, database_url=store.url, collection="noisy") as facedex:
        facedex.import_file(
            ImportRequest(path=tmp_path / "noisy.parquet", collection="noisy", space="made@1")
        )
        facedex.evaluation.calibrate()
        yield facedex


def test_planted_errors_of_labels_are_listed_and_nothing_else(noisy: Facedex) -> None:
    found = noisy.curation.labels(fpir=1e-4)
    rows = found.table.to_pylist()
    assert found.table.equals(noisy.curation.labels(fpir=1e-4).table)
    ids = {face.face: int(str(face.external_id)) for face in noisy.faces(limit=1_000)}
    told = {kind: [row for row in rows if row["kind"] == kind] for kind in map(str, Kind)}
    assert {
        (ids[row["face"]], row["person"], row["other_person"]) for row in told["mislabelled"]
    } == {(row, name, f"P{row // 6}") for row, name in WRONG.items()}
    assert [{row["person"], row["other_person"]} for row in told["same_person"]] == [
        {"P39", "Another39"}
    ]
    [conflict] = told["conflict"]
    assert {ids[conflict["face"]], ids[conflict["other_face"]]} == {100, 340}
    assert conflict["field"] == "gender"
    assert {conflict["value"], conflict["other_value"]} == {"female", "male"}
    assert told["unlike"] == told["poor"] == []
    sure = [row["confidence"] for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert sure[-1] > 0.99


def test_persons_that_are_linked_or_told_apart_are_not_listed_again(noisy: Facedex) -> None:
    noisy.people.link("P39", "Another39")
    assert noisy.curation.labels(fpir=1e-4).figures()["same_person"] == 0


def test_a_field_that_cannot_be_compared_is_refused(noisy: Facedex) -> None:
    for name, said in (("quality", "holds number"), ("gendr", "no field is called 'gendr'")):
        with pytest.raises(UsageError, match=said):
            noisy.curation.labels(compared=[name])
