"""A face-text space that comes after the pictures: backfilled, it is as if it had been there."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from facedex.handle import Facedex, open_facedex
from indexer.backfill import SAMPLE_PICTURES, sample_portraits, sample_texts
from indexer.bulk.importing import ImportRequest
from retrieval.align import portrait
from retrieval.errors import (
    LicenceError,
    ModelUnavailableError,
    SpaceMismatchError,
    UnknownNameError,
    UsageError,
)
from retrieval.store.captions import NewCaption, add_captions
from retrieval.store.database import Store
from retrieval.store.holdings import Kind
from retrieval.values import FaceId
from tests.pictures import astronaut, encoded, group
from tests.words import small_model

pytestmark = pytest.mark.weights
Open = Callable[..., Any]
SIX_AND_ONE = 7


@pytest.fixture
def opened(database_url: str, tmp_path: Path) -> Open:
    """Opens Facedex for a collection, in one home."""

    @contextmanager
    def open_(collection: str = "default", **options: Any) -> Iterator[Facedex]:
        with open_facedex(
            home=tmp_path / "home",
            database_url=database_url,
            collection=collection,
            workers=1,
            **options,
        ) as facedex:
            yield facedex

    return open_


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "given").path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six people in a file, one in a tar; another tar has the same name for other pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "six.jpg").write_bytes(encoded(group(), "JPEG", quality=90))
    one = tmp_path / "one.png"
    one.write_bytes(encoded(astronaut().crop((100, 0, 400, 300)), "PNG"))
    with tarfile.open(folder / "one.tar", "w") as archive:
        archive.add(one, arcname="in/one.png")
    return folder


def all_of(pictures: Path) -> list[Path]:
    return sorted(pictures.iterdir())


def vectors(store: Store, collection: str) -> dict[tuple[bytes, tuple[float, ...]], Any]:
    """What lies in the face-text space, by picture and box: vector, tags, who gave them."""
    with store.reading() as connection:
        rows = connection.execute(
            text("""
                SELECT image.sha256, face.box, vector.data, face.tags, face.provenance
                FROM face
                    JOIN collection ON collection.id = face.collection_id
                    JOIN image ON image.id = face.image_id
                    LEFT JOIN vector ON face_id = face.id AND vector.space_id = text_space_id
                WHERE collection.name = :name
            """),
            {"name": collection},
        )
        return {
            (bytes(row.sha256), tuple(row.box)): (
                None if row.data is None else np.frombuffer(row.data, "<f2"),
                None if row.tags is None else sorted(row.tags),
                row.provenance,
            )
            for row in rows
        }


def assert_alike(one: dict[Any, Any], other: dict[Any, Any]) -> None:
    assert one.keys() == other.keys()
    for key, (vector, tags, provenance) in one.items():
        np.testing.assert_allclose(vector.astype(float), other[key][0].astype(float), atol=2e-3)
        assert tags == other[key][1]
        assert provenance["tags"]["provider"] == other[key][2]["tags"]["provider"]
        assert provenance["tags"]["confidence"] == pytest.approx(
            other[key][2]["tags"]["confidence"], abs=1e-3
        )


def test_a_backfilled_space_is_as_if_it_had_been_there_before_the_pictures(
    opened: Open, model: Path, pictures: Path
) -> None:
    with opened("before") as facedex:
        facedex.words.add_space("small@1", model)
        assert facedex.ingest(all_of(pictures)).faces == SIX_AND_ONE
        before = vectors(facedex.store, "before")
    with opened("after") as facedex:
        facedex.ingest(all_of(pictures))
        facedex.words.add_space("small@1", model)
        assert {vector for vector, *_ in vectors(facedex.store, "after").values()} == {None}
        steps: list[tuple[int, int]] = []
        filled = facedex.words.backfill(progress=lambda *step: steps.append(step))
        assert (filled.faces.pictures, filled.faces.faces) == (2, SIX_AND_ONE)
        assert (filled.faces.missing, filled.faces.unseen) == ((), 0)
        assert steps[-1] == (2, 2)
        assert_alike(vectors(facedex.store, "after"), before)
        again = facedex.words.backfill()
        assert (again.faces.pictures, again.faces.faces) == (0, 0)
        assert facedex.index_status(Kind.LOOKS).rows == SIX_AND_ONE
        assert facedex.check(Kind.LOOKS).differences == ()


def test_faces_are_found_by_the_sentence_that_fits_them_best(
    opened: Open, model: Path, pictures: Path
) -> None:
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        facedex.ingest(all_of(pictures))
        probe = facedex.words.encoder().of_texts(["a woman who is smiling"])
        rows = [v for v, *_ in vectors(facedex.store, "default").values()]
        truth = np.sort(unit(np.array(rows, np.float64)) @ probe[0])[::-1]
        index = facedex.opened(facedex.holding(facedex.collection(), Kind.LOOKS))
        index.refresh()
        from retrieval.search import Question

        [hits] = index.search(Question(vectors=probe, count=3, recall="exact")).hits
        assert hits.similarities == pytest.approx(truth[:3], abs=1e-6)


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_that_are_gone_or_others_now_are_reported_and_the_rest_is_filled(
    opened: Open, model: Path, pictures: Path
) -> None:
    (pictures / "crop.jpg").write_bytes(encoded(group().crop((0, 0, 700, 886)), "JPEG"))
    with opened() as facedex:
        faces = facedex.ingest(all_of(pictures)).faces
        (pictures / "one.tar").unlink()
        (pictures / "crop.jpg").write_bytes(encoded(astronaut(), "JPEG"))
        facedex.words.add_space("small@1", model)
        filled = facedex.words.backfill()
        told = {(one.path.name, one.member): one.reason for one in filled.faces.missing}
        assert told == {
            ("one.tar", "in/one.png"): "no such file or folder",
            ("crop.jpg", None): "another picture lies there now",
        }
        assert filled.faces.faces == 6
        assert sum(one.faces for one in filled.faces.missing) == faces - 6
        have = [vector is not None for vector, *_ in vectors(facedex.store, "default").values()]
        assert sorted(have) == [False] * (faces - 6) + [True] * 6


def test_faces_without_pictures_are_counted_and_left(
    opened: Open, model: Path, pictures: Path, tmp_path: Path
) -> None:
    with opened() as facedex:
        facedex.ingest([pictures / "six.jpg"])
        rows = np.random.default_rng(0).standard_normal(3 * 512).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows), 512)
        pq.write_table(pa.table({"vector": column}), tmp_path / "in.parquet")
        request = ImportRequest(
            path=tmp_path / "in.parquet", collection="default", space="arcface-mbf@1"
        )
        facedex.import_file(request)
        facedex.words.add_space("small@1", model)
        filled = facedex.words.backfill()
        assert (filled.faces.faces, filled.faces.unseen) == (6, 3)


def test_captions_get_their_vectors_too(opened: Open, model: Path, pictures: Path) -> None:
    said = ["a man in a suit", "ein Mann im Anzug", "someone smiles"]
    with opened() as facedex:
        facedex.ingest([pictures / "six.jpg"])
        face = facedex.faces()[0].face
        with facedex.store.writing() as connection:
            captions = [NewCaption(face=face, text=sentence) for sentence in said]
            ids = add_captions(connection, captions, collection=facedex.collection())
        facedex.words.add_space("small@1", model)
        assert facedex.words.backfill().captions == 3
        assert facedex.words.backfill().captions == 0
        with facedex.store.reading() as connection:
            rows = connection.execute(
                text("SELECT caption_id, data FROM caption_vector ORDER BY caption_id")
            ).all()
        expected = facedex.words.encoder().of_texts(said)
        assert [row.caption_id for row in rows] == ids
        found = np.array([np.frombuffer(row.data, "<f2") for row in rows])
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_sample_is_of_the_pictures_that_are_there_and_of_captions_or_made_up_sentences(
    opened: Open, pictures: Path
) -> None:
    with opened() as facedex:
        facedex.ingest(all_of(pictures))
        store, collection = facedex.store, facedex.collection()
        (pictures / "one.tar").unlink()
        seen = facedex.portrait(pictures / "six.jpg")
        expected = [portrait(seen.decoded.pixels, face.detection.landmarks) for face in seen.faces]
        found = sample_portraits(store, collection=collection)
        np.testing.assert_array_equal(found, np.stack(expected))
        made_up = sample_texts(store, collection=collection)
        assert len(made_up) == SAMPLE_PICTURES
        assert len(set(made_up)) > SAMPLE_PICTURES * 0.9
        assert made_up == sample_texts(store, collection=collection)
        face = facedex.faces()[0].face
        said = [f"caption number {number}" for number in range(SAMPLE_PICTURES)]
        with store.writing() as connection:
            captions = [NewCaption(face=face, text=sentence) for sentence in said]
            add_captions(connection, captions, collection=collection)
        assert sample_texts(store, collection=collection) == said


def test_captions_of_an_import_get_their_vectors_at_once(
    opened: Open, model: Path, tmp_path: Path
) -> None:
    table = pa.table({"vector": [[1.0, 0.0], [0.0, 1.0]], "caption": ["a hat", "ein Hut"]})
    pq.write_table(table, tmp_path / "in.parquet")
    request = ImportRequest(path=tmp_path / "in.parquet", collection="default", space="two@1")
    with opened() as facedex:
        facedex.create("default", demographics=False)
        facedex.words.add_space("small@1", model)
        facedex.import_file(request)
        with facedex.store.reading() as connection:
            rows = connection.execute(
                text(
                    "SELECT text, data FROM caption JOIN caption_vector ON caption_id = id"
                    " ORDER BY face_id"
                )
            ).all()
        assert [row.text for row in rows] == ["a hat", "ein Hut"]
        found = np.array([np.frombuffer(row.data, "<f2") for row in rows])
        expected = facedex.words.encoder().of_texts(["a hat", "ein Hut"])
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert facedex.check(Kind.CAPTIONS).differences == ()


# --- tags -----------------------------------------------------------------------------------------


def tags(facedex: Facedex, where: str | None = None) -> dict[FaceId, list[str] | None]:
    found = facedex.faces(where=where)
    return {one.face: one.attributes.get("tags") for one in found}


def test_tags_of_another_model_take_the_place_of_guesses_and_leave_what_was_stated(
    opened: Open, model: Path, pictures: Path, tmp_path: Path
) -> None:
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        facedex.ingest([pictures / "six.jpg"])
        first, *others = tags(facedex)
        facedex.update({"tags": ("stated", "bright")}, where=f"face = {first}")
        other = small_model(tmp_path / "given", space="small@2", seed=1)
        facedex.words.add_space("small@2", other.path)
        filled = facedex.words.apply_tags(where=f"face <= {others[0]}")
        assert filled.faces.faces == 2
        with facedex.store.reading() as connection:
            rows = connection.execute(
                text("SELECT id, tags, provenance FROM face ORDER BY id")
            ).all()
        providers = [row.provenance["tags"]["provider"] for row in rows]
        assert providers == ["small@2"] * 2 + ["small@1"] * 4
        assert {"stated", "bright"} <= set(rows[0].tags)
        assert len(rows[0].tags) == len(set(rows[0].tags))
        assert "bright" not in rows[0].provenance["tags"]["confidence"]
        for row in rows[1:]:  # both models have the same heads
            assert set(row.tags) == set(row.provenance["tags"]["confidence"])
        assert facedex.words.apply_tags().faces.faces == 4
        assert facedex.words.apply_tags().faces.faces == 0
        # Looking for tags filled the space of the new model on the way.
        assert facedex.words.backfill().faces.faces == 0


def test_tags_are_fit_for_filters(opened: Open, model: Path, pictures: Path) -> None:
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        facedex.ingest(all_of(pictures))
        given = tags(facedex)
        bright = {face for face, its in given.items() if "bright" in (its or [])}
        assert set(tags(facedex, "'bright' = ANY(tags)")) == bright
        assert set(tags(facedex, "NOT 'bright' = ANY(tags)")) == set(given) - bright


def test_tags_that_somebody_set_stay_set(opened: Open, model: Path, pictures: Path) -> None:
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        facedex.ingest(all_of(pictures))
        facedex.update({"tags": ("mine",)}, where="face > 0")
        facedex.ingest(all_of(pictures))
        assert facedex.words.apply_tags().faces.faces == 0
        assert set(map(tuple, tags(facedex).values())) == {("mine",)}  # type: ignore[arg-type]


# --- what is refused ------------------------------------------------------------------------------


def test_a_collection_without_a_space_says_what_to_do(opened: Open, pictures: Path) -> None:
    with opened() as facedex:
        facedex.ingest([pictures / "six.jpg"])
        for ask in (facedex.words.backfill, facedex.words.apply_tags, facedex.words.encoder):
            with pytest.raises(UnknownNameError, match="face-text"):
                ask()


def test_a_model_under_another_name_is_refused(opened: Open, model: Path) -> None:
    with opened() as facedex, pytest.raises(UsageError, match=r"'small@1', not 'looks@1'"):
        facedex.words.add_space("looks@1", model)


def test_another_model_under_a_stored_name_is_refused(
    opened: Open, model: Path, tmp_path: Path
) -> None:
    other = small_model(tmp_path / "other", seed=1).path
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        with pytest.raises(UsageError, match="another version"):
            facedex.words.add_space("small@1", other)
    (tmp_path / "home" / "models" / "small@1").rename(tmp_path / "gone")
    with opened() as facedex, pytest.raises(SpaceMismatchError):
        facedex.words.add_space("small@1", other)


def test_a_home_without_the_model_says_so_before_it_reads_pictures(
    opened: Open, model: Path, pictures: Path, tmp_path: Path
) -> None:
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
    (tmp_path / "home" / "models" / "small@1").rename(tmp_path / "gone")
    with opened() as facedex:
        with pytest.raises(ModelUnavailableError, match=r"space add small@1 --model"):
            facedex.ingest([pictures / "six.jpg"])
        assert facedex.count() == 0
        facedex.words.add_space("small@1", model)
        assert facedex.ingest([pictures / "six.jpg"]).faces == 6


def test_commerce_is_refused_a_space_for_research(
    opened: Open, pictures: Path, tmp_path: Path
) -> None:
    model = small_model(tmp_path / "given", commercial=False).path
    with opened(use="commercial") as facedex, pytest.raises(LicenceError, match="small@1"):
        facedex.words.add_space("small@1", model)
    with opened(models="sface") as facedex:
        facedex.words.add_space("small@1", model)
        facedex.ingest([pictures / "six.jpg"])
    with opened(use="commercial") as facedex:
        for ask in (
            facedex.words.encoder,
            facedex.words.backfill,
            lambda: facedex.ingest([pictures / "one.tar"]),
        ):
            with pytest.raises(LicenceError, match="small@1"):
                ask()


def test_a_person_that_is_enrolled_has_looks_too(opened: Open, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "her.png"
    path.write_bytes(encoded(astronaut().crop((100, 0, 400, 300)), "PNG"))
    with opened() as facedex:
        facedex.words.add_space("small@1", model)
        assert facedex.recognition.enroll("Ann", [path]).person is not None
        [(vector, _, provenance)] = vectors(facedex.store, "default").values()
        [expected] = facedex.words.probe_of_portrait(facedex.portrait(path))
        np.testing.assert_allclose(vector, expected, atol=1e-3)
        assert provenance["tags"]["provider"] == "small@1"
