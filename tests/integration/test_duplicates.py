"""Among real pictures of a few people, the planted copies are found, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.planted import plant
from facedex.duplicates import Found
from facedex.duplicates_report import as_table, write
from facedex.handle import Facedex, open_facedex
from indexer.erasing import likeness_folder
from retrieval.curation.duplicates import Decision

pytestmark = [pytest.mark.data, pytest.mark.weights]
PEOPLE = 6  # with ten pictures each


@pytest.fixture(scope="module")
def planted(lfw_small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    people = sorted(lfw_small.iterdir())[:PEOPLE]
    pictures = sorted(path for person in people for path in person.glob("*.jpg"))
    return plant(pictures, tmp_path_factory.mktemp("planted"), each=3, seed=1)


@pytest.fixture(scope="module")
def facedex(
    planted: dict[Path, Path], database_url_of_module: str, tmp_path_factory
) -> Iterator[Facedex]:
    originals = sorted({path.parent for path in planted.values()})
    home = tmp_path_factory.mktemp("home")
    with open_facedex(home=home, database_url=database_url_of_module, workers=1) as opened:
        opened.ingest([*originals, *sorted({path.parent for path in planted})])
        yield opened


def pairs(found: Found) -> set[frozenset[str]]:
    """The paths of what is dropped with what is kept."""
    paths = found.pictured.pictures.paths
    return {
        frozenset(
            paths[one.picture].decode() for one in (group[0], other) if one.picture is not None
        )
        for group in found.groups
        for other in group[1:]
    }


def expected(planted: dict[Path, Path]) -> set[frozenset[str]]:
    return {frozenset(map(str, both)) for both in planted.items()}


def test_planted_copies_are_found_and_nothing_else(
    facedex: Facedex, planted: dict[Path, Path]
) -> None:
    found = facedex.duplicates.images()
    assert pairs(found) == expected(planted)
    assert found.missing == ()
    for group in found.groups:
        assert [one.decision for one in group] == [Decision.KEEP, Decision.DROP]


def test_a_second_run_reads_nothing_and_says_the_same(facedex: Facedex, tmp_path: Path) -> None:
    first, read = facedex.duplicates.images(), []
    second = facedex.duplicates.images(progress=lambda done, _: read.append(done))
    assert read == []
    for found, name in ((first, "one"), (second, "two")):
        write(found, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_faces_of_copies_are_one_shot_and_the_next_picture_is_not(
    facedex: Facedex, planted: dict[Path, Path]
) -> None:
    found = facedex.duplicates.faces()
    assert pairs(found) == expected(planted)


def test_a_filter_leaves_out_what_it_does_not_pass(facedex: Facedex) -> None:
    everything = facedex.duplicates.images().pictured.pictures
    last = int(everything.ids[-1])
    found = facedex.duplicates.images(where=f"image_id < {last}")
    assert len(found.pictured.pictures) == len(everything) - 1


def test_each_row_of_the_table_names_a_face_of_its_picture(facedex: Facedex) -> None:
    table = as_table(facedex.duplicates.images())
    records = {record.face: record for record in facedex.faces(limit=1_000)}
    assert table.schema.field("group").type == pa.int64()
    for row in table.to_pylist():
        assert records[row["face"]].image == row["path"].encode()


def test_what_is_kept_of_pictures_goes_with_their_collection(
    facedex: Facedex, planted: dict[Path, Path]
) -> None:
    options = {"home": facedex.settings.home, "database_url": facedex.settings.database_url}
    with open_facedex(options, collection="other", workers=1) as opened:
        opened.ingest([next(iter(planted))])
        folder = likeness_folder(opened.settings.home, opened.collection().id)
        assert opened.duplicates.images().groups == ()
        assert len(list(folder.iterdir())) == 3
        opened.drop("other")
    assert not folder.exists()
