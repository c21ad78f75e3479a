"""Data sets cut and cleaned, from outside: what is told, and that it is the same again."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import Facedex
from tests.labelled import people

COUNTS = [6] * 30 + [1] * 170
RULES = """
[[rule]]
name = "good enough"
where = "quality >= 0.2"

[[rule]]
name = "of the web"
where = "source = 'web'"

[[rule]]
name = "three of each person"
best_per_person = 3
"""


def imported(facedex: Facedex, folder: Path, *, collection: str, seed: int = 7) -> pa.Table:
    """A collection of 350 imported faces of 200 persons, half of them from the web."""
    faces = people(COUNTS, noise=0.9, seed=seed)
    table = pa.table(
        {
            "id": [f"face {number}" for number in faces.faces],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(faces.vectors.ravel()), 32),
            "person": [f"P{person}" for person in faces.persons],
            "quality": faces.quality,
            "source": ["web" if number % 2 else "archive" for number in faces.faces],
        }
    )
    pq.write_table(table, folder / f"{collection}.parquet")
    ran = facedex(
        "import", str(folder / f"{collection}.parquet"), "--space", "made@1", "-c", collection
    )
    assert ran.status == 0, ran.err
    return table


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rules_drop_what_fails_them_and_a_second_run_is_the_same_to_the_byte(
    facedex: Facedex, tmp_path: Path
) -> None:
    table = imported(facedex, tmp_path, collection="made")
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    runs = [
        facedex("curate", str(rules), "-c", "made", "--json", "--out", str(tmp_path / name))
        for name in ("one", "two")
    ]
    assert [ran.status for ran in runs] == [0, 0], runs[0].err
    assert runs[0].out == runs[1].out
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    figures = runs[0].json
    assert figures["input"] == 350 == figures["kept"] + figures["dropped"]
    assert figures["dropped"] == sum(rule["dropped"] for rule in figures["rules"])
    rows = table.to_pylist()
    poor = {row["id"] for row in rows if row["quality"] < 0.2}
    elsewhere = {row["id"] for row in rows if row["source"] != "web"} - poor
    left = [row for row in rows if row["id"] not in poor | elsewhere]
    fourth = {
        row["id"]
        for row in left
        if sum(
            other["person"] == row["person"] and other["quality"] > row["quality"] for other in left
        )
        >= 3
    }
    dropped = pq.read_table(tmp_path / "one" / "dropped.parquet").to_pylist()
    for name, gone in (
        ("good enough", poor),
        ("of the web", elsewhere),
        ("three of each person", fourth),
    ):
        assert {row["external_id"] for row in dropped if row["rule"] == name} == gone
    kept = pq.read_table(tmp_path / "one" / "kept.parquet")["external_id"].to_pylist()
    assert sorted(kept) == sorted({row["id"] for row in left} - fourth)


def test_a_rule_that_names_an_unknown_field_is_told_by_its_name(
    facedex: Facedex, tmp_path: Path
) -> None:
    imported(facedex, tmp_path, collection="made")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "large"\nwhere = "sise_px > 3"\n')
    ran = facedex("curate", str(rules), "-c", "made")
    assert ran.status == 2
    assert "rule 'large'" in ran.err
    assert "size_px" in ran.err


def test_parts_share_no_person_and_a_second_run_is_the_same_to_the_byte(
    facedex: Facedex, tmp_path: Path
) -> None:
    imported(facedex, tmp_path, collection="made")
    words = ("partition", "-c", "made", "--above", "0.99", "--balance", "source", "--json")
    for name in ("one", "two"):
        ran = facedex(*words, "--seed", "5", "--out", str(tmp_path / name))
        assert ran.status == 0, ran.err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    rows = pq.read_table(tmp_path / "one" / "parts.parquet").to_pylist()
    assert len(rows) == 350
    parts = {
        name: {row["person"] for row in rows if row["part"] == name}
        for name in ("train", "val", "test")
    }
    assert sum(len(persons) for persons in parts.values()) == 200
    for one in ran.json["parts"]:
        faces = sum(row["part"] == one["part"] for row in rows)
        assert one["faces"] == faces == sum(one["values"].values())
        assert one["faces_off"] == pytest.approx(faces - one["asked"] * 350)
        assert abs(one["faces_off"]) <= ran.json["largest_group"]
    told = facedex(*words[:-1], "--attribute", "split")
    assert told.status == 0, told.err
    count = facedex("count", "-c", "made", "--where", "split = 'train'", "--json")
    assert count.json["count"] == pytest.approx(280, abs=6)
    for wrong, said in (
        (("--parts", "a=.5,b=.6"), "add up to 1.1"),
        (("--balance", "person"), "says who somebody is"),
    ):
        ran = facedex("partition", "-c", "made", *wrong)
        assert ran.status == 2
        assert said in ran.err


def test_labels_are_listed_once_there_is_a_calibration(facedex: Facedex, tmp_path: Path) -> None:
    imported(facedex, tmp_path, collection="made")
    refused = facedex("labels", "-c", "made")
    assert refused.status == 2
    assert "--calibrate" in refused.err
    assert facedex("evaluate", "verification", "--calibrate", "-c", "made").status == 0
    ran = facedex("labels", "-c", "made", "--json", "--out", str(tmp_path / "labels"))
    assert ran.status == 0, ran.err
    rows = pq.read_table(tmp_path / "labels" / "labels.parquet").to_pylist()
    assert len(rows) == sum(
        ran.json[kind] for kind in ("mislabelled", "unlike", "same_person", "conflict", "poor")
    )
    assert (tmp_path / "labels" / "labels.csv").read_text().count("\n") == len(rows) + 1
