"""Data sets of a real store: what rules ask of pictures, captions and marks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from retrieval.store.captions import NewCaption, add_captions
from retrieval.store.database import Store
from tests.people import faces_of, gallery

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
    options = {"above": 0.999, **options}
    found = facedex.curation.partition({"a": 0.5, "b": 0.5}, **options)
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
    for seed in range(4):
        parts = parts_of(opened, unlabelled="cluster-alone", seed=seed)
        assert len(parts) == 8
        assert parts[beside] == parts[faces_of(store, "Ann")[0]]
    apart = {
        parts_of(opened, unlabelled="cluster-alone", seed=seed)[alone]
        == parts_of(opened, unlabelled="cluster-alone", seed=seed)[cid]
        for seed in range(8)
    }
    assert apart == {True, False}
    with store.writing() as connection:
        connection.execute(
            text(
                "UPDATE vector SET data = (SELECT data FROM vector WHERE face_id = :cid)"
                " WHERE face_id = :alone"
            ),
            {"cid": cid, "alone": alone},
        )
    for seed in range(8):
        parts = parts_of(opened, unlabelled="cluster-alone", seed=seed)
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
