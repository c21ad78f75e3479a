"""Data sets of a real store: what rules ask of pictures, captions and marks."""

from collections.abc import Iterator
from pathlib import Path

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
