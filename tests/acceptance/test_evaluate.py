"""`facedex evaluate` from outside: from pictures, or from vectors, to figures."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facedex.handle import open_facedex
from retrieval.store.captions import NewCaption, add_caption_vectors, add_captions
from retrieval.values import FaceId
from tests.acceptance.conftest import Facedex, run
from tests.galleries import TestGallery, gallery, unit_vectors
from tests.labelled import people
from tests.words import small_model

COUNTS = [4] * 60 + [1] * 400


@pytest.fixture
def known(facedex: Facedex, tmp_path: Path) -> Facedex:
    """A collection of 640 imported faces, of which every person has a kind."""
    faces = people(COUNTS, noise=0.9, seed=7)
    table = pa.table(
        {
            "id": [f"face {number}" for number in faces.faces],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(faces.vectors.ravel()), 32),
            "person": [f"Secret{person}" for person in faces.persons],
            "quality": faces.quality,
            "kind": [("odd" if person % 2 else "even") for person in faces.persons],
        }
    )
    pq.write_table(table, tmp_path / "faces.parquet")
    ran = facedex("import", str(tmp_path / "faces.parquet"), "--space", "made@1")
    assert ran.status == 0, ran.err
    return facedex


def test_each_evaluation_prints_figures_with_intervals_and_writes_a_page(
    known: Facedex, tmp_path: Path
) -> None:
    figures = {}
    for what, options, drawings in (
        ("verification", [], {"roc.png", "det.png", "rates.png"}),
        ("identification", ["--gallery", "20", "--splits", "3"], {"fnir.png", "fpir.png"}),
        ("bias", ["--by", "kind", "--fmr", "0.01", "--pairs-min", "150"], {"groups.png"}),
        ("quality", ["--fmr", "0.001"], {"discard.png"}),
    ):
        out = tmp_path / what
        ran = known("evaluate", what, *options, "--json", "--out", str(out))
        assert ran.status == 0, ran.err
        written = {"figures.json", "curves.parquet", "index.html", *drawings}
        assert {path.name for path in out.iterdir()} == written
        assert json.loads((out / "figures.json").read_text()) == ran.json
        assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in drawings)
        assert pq.read_table(out / "curves.parquet").num_rows > 0
        for path in out.iterdir():
            assert b"Secret" not in path.read_bytes()
        figures[what] = ran.json
    check_verification(figures["verification"], tmp_path / "verification")
    identified = figures["identification"]
    assert (identified["mated"], identified["strangers"]) == (60, 400)
    assert {(one["gallery"], one["scoring"]) for one in identified["galleries"]} == {
        (size, scoring) for size in (20, 60) for scoring in ("template", "best")
    }
    assert within(identified, "fnir_at_fpir_1e_1")
    assert identified["fnir_at_fpir_1e_2"] is None  # 4 of 400 strangers
    assert {one["group"] for one in figures["bias"]["groups"]} == {"odd", "even"}
    assert within(figures["bias"], "fmr_ratio")
    assert within(figures["quality"], "fnmr_without_worst_30")


def check_verification(figures: dict[str, float], out: Path) -> None:
    """The figures are those of all pairs, compared here by numpy."""
    faces = people(COUNTS, noise=0.9, seed=7)
    halves = faces.vectors.astype(np.float16).astype(np.float32)
    one, other = np.triu_indices(len(halves), k=1)
    similar = (halves @ halves.T)[one, other]
    same = faces.persons[one] == faces.persons[other]
    assert figures["genuine_pairs"] == same.sum()
    assert figures["impostor_pairs"] == (~same).sum()
    for key, fmr in (("1e_2", 1e-2), ("1e_3", 1e-3)):
        threshold = np.quantile(similar[~same], 1 - fmr)
        assert figures[f"threshold_at_fmr_{key}"] == pytest.approx(threshold, abs=2e-3)
        tar = (similar[same] >= figures[f"threshold_at_fmr_{key}"]).mean()
        assert figures[f"tar_at_fmr_{key}"] == pytest.approx(tar, abs=5e-3)
        assert within(figures, f"tar_at_fmr_{key}")
    assert figures["tar_at_fmr_1e_6"] is None
    curve = pq.read_table(out / "curves.parquet")
    at = curve["threshold"].to_numpy()
    for name, truth in (
        ("fmr", similar[~same][:, None] >= at),
        ("fnmr", similar[same][:, None] < at),
    ):
        assert curve[name].to_numpy() == pytest.approx(truth.mean(axis=0), abs=1e-3)


def within(figures: dict[str, float], name: str) -> bool:
    return figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_what_cannot_be_evaluated_is_told(known: Facedex, tmp_path: Path) -> None:
    for words, told in (
        (["bias", "--by", "person"], "says who somebody is"),
        (["bias", "--by", "kind", "--persons-min", "500"], "no group is large enough"),
        (["verification", "--where", "quality > 2"], "no face of collection 'default' passes"),
        (["verification", "--where", "kin = 'odd'"], "kind"),
        (["quality", "--fmr", "2"], "--fmr"),
        (["verification", "--pairs", str(tmp_path / "faces.parquet")], "cannot be read as text"),
    ):
        ran = known("evaluate", *words)
        assert ran.status == 2, words
        assert told in ran.err
        assert "Secret" not in ran.err
        assert "Traceback" not in ran.err


def test_words_are_evaluated_with_intervals_a_page_and_no_face(home: Path, tmp_path: Path) -> None:
    with open_facedex(home=home) as opened:
        made = gallery(opened.store, name="default")
        folder = small_model(tmp_path / "models", dimension=32).path
        space = opened.words.add_space("small@1", folder).space
        looks = unit_vectors(300, dimension=32)
        tags = [["hat"] if face % 3 else ["beard"] for face in range(300)]
        TestGallery(made.store, made.collection, space).add(range(1, 301), looks, tags=tags)
        made.execute("UPDATE face SET gender = CASE WHEN id % 2 = 0 THEN 'male' ELSE 'female' END")
        new = [NewCaption(face=FaceId(face), text=f"secret {face}") for face in range(1, 301)]
        with opened.store.writing() as connection:
            ids = add_captions(connection, new, collection=opened.collection())
            add_caption_vectors(connection, ids, looks, space=space)
    sentences = tmp_path / "sentences.json"
    sentences.write_text('[{"sentence": "a hat", "attributes": {"Wearing_Hat": 1}}]')
    figures = {}
    for name, options, drawings in (
        ("ranks", ["--sentences", str(sentences)], {"recall.png"}),
        ("skew", ["--groups", "gender", "--sentence", "a criminal", "-k", "50"], {"skew_0.png"}),
    ):
        out = tmp_path / name
        ran = run(home, "evaluate", "captions", *options, "--json", "--out", str(out))
        assert ran.status == 0, ran.err
        written = {"figures.json", "curves.parquet", "index.html", *drawings}
        assert {path.name for path in out.iterdir()} == written
        assert json.loads((out / "figures.json").read_text()) == ran.json
        assert pq.read_table(out / "curves.parquet").num_rows > 0
        assert b"secret" not in b"".join(path.read_bytes() for path in out.iterdir())
        figures[name] = ran.json
    ranks, (skew,) = figures["ranks"], figures["skew"]["skew"]
    assert (ranks["faces"], ranks["captions"], ranks["recall_at_1"]) == (300, 300, 1.0)
    assert (ranks["face_to_text_gallery"], ranks["face_to_text_median_rank"]) == (300, 1.0)
    assert (ranks["sentences"][0]["relevant"], ranks["precision_at_10"] <= 1) == (200, True)
    assert within(ranks, "sentences_map")
    assert {one["group"] for one in skew["groups"]} == {"female", "male"}
    assert sum(one["found"] for one in skew["groups"]) == 50
    assert all(within(one, "ratio") for one in skew["groups"])
    ran = run(home, "evaluate", "captions", "--groups", "gender")
    assert ran.status == 2
    assert "--groups FIELD goes with --sentence" in ran.err


@pytest.mark.weights
@pytest.mark.data
def test_one_command_leads_from_pictures_to_figures(
    facedex: Facedex, tmp_path: Path, lfw_small: Path
) -> None:
    folder = tmp_path / "people"
    archive = tmp_path / "people.tar"
    persons = sorted(path for path in lfw_small.iterdir() if path.is_dir())[:12]
    with tarfile.open(archive, "w") as tar:
        for person in persons:
            for picture in sorted(person.iterdir())[:4]:
                tar.add(picture, f"{folder.name}/{person.name}/{picture.name}")
    lines = ["2 6"]
    for half in (persons[:6], persons[6:]):
        lines += [f"{person.name} 1 2" for person in half]
        lines += [
            f"{one.name} 3 {other.name} 4"
            for one, other in zip(half, half[1:] + half[:1], strict=True)
        ]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines))
    words = ("evaluate", "verification", "--images", str(archive), "--pairs", str(pairs), "--json")
    ran = facedex(*words)
    assert ran.status == 0, ran.err
    found = ran.json
    assert (found["persons"], found["faces"], found["pairs"]) == (12, 48, 24)
    assert found["genuine_pairs"] == 12 * 6
    assert found["pairs_unscored"] == 0
    assert found["accuracy"] >= 0.9
    assert found["auc"] > 0.99
    again = facedex(*words)
    assert "0 new images, 48 known" in again.err
    assert again.json == found


def test_clusters_of_a_file_are_judged_against_persons_or_a_field(
    known: Facedex, home: Path, tmp_path: Path
) -> None:
    """Every person of four faces is one cluster, but the last face of each is not in the file."""
    from retrieval.evaluation.clustering import figures

    with open_facedex(home=home, collection="default") as opened:
        faces = opened.evaluation.faces()
    first = np.searchsorted(faces.persons, faces.persons)
    ranks = np.arange(len(faces)) - first
    file = tmp_path / "clusters.parquet"
    chosen = ranks < 3
    named = [f"group {person}" for person in faces.persons[chosen]]
    pq.write_table(pa.table({"face": faces.faces[chosen], "cluster": named}), file)
    out = tmp_path / "report"
    ran = known("evaluate", "clustering", "--clusters", str(file), "--json", "--out", str(out))
    assert ran.status == 0, ran.err
    expected = figures(faces.persons, np.where(chosen, faces.persons, -1), faces_max=20)
    for name, value in expected._asdict().items():
        assert ran.json[name] == pytest.approx(value)
    assert within(ran.json, "bcubed_f")
    assert (ran.json["faces"], ran.json["clusters"], ran.json["alone"]) == (640, 60, 460)
    assert (ran.json["mixed_clusters"], ran.json["split_persons"]) == (0, 60)
    assert {path.name for path in out.iterdir()} == {
        "figures.json",
        "curves.parquet",
        "index.html",
        "agreement.png",
    }
    for path in out.iterdir():
        assert b"Secret" not in path.read_bytes()
    by_size = known(
        *("evaluate", "clustering", "--clusters", str(file), "--by", "kind", "--json"),
        *("--faces-max", "0"),
    )
    assert by_size.status == 2, by_size.err
    assert "2 persons have two faces" in by_size.err


def test_groups_are_judged_that_would_be_found_if_nobody_had_said_who_is_who(
    known: Facedex, home: Path, tmp_path: Path
) -> None:
    """Oracle: the same faces in a collection without persons, grouped."""
    from retrieval.evaluation.clustering import figures
    from retrieval.store.calibrations import keep_calibration
    from retrieval.store.clusterings import NOBODY
    from retrieval.store.collections import space_of

    assert known("evaluate", "verification", "--calibrate", "--json").status == 0
    table = pq.read_table(tmp_path / "faces.parquet").drop_columns(["person"])
    pq.write_table(table, tmp_path / "blank.parquet")
    ran = known("import", str(tmp_path / "blank.parquet"), "--space", "made@1", "-c", "blank")
    assert ran.status == 0, ran.err
    with open_facedex(home=home, collection="default") as opened:
        faces = opened.evaluation.faces()
        calibration = opened.recognition.calibration()
    with open_facedex(home=home, collection="blank") as blank:
        tenant = blank.collection()
        with blank.store.writing() as connection:
            space = space_of(connection, tenant)
            keep_calibration(connection, calibration, collection=tenant, space=space)
        grouped = blank.clustering.cluster(write=False)
    alone = grouped.persons == NOBODY
    # Both collections got their faces in one order.
    places = np.argsort(np.argsort(faces.faces))
    expected = figures(
        faces.persons, np.where(alone, -1, np.abs(grouped.persons))[places], faces_max=20
    )
    assert 0.5 < expected.bcubed_f < 1
    ran = known("evaluate", "clustering", "--json")
    assert ran.status == 0, ran.err
    for name, value in expected._asdict().items():
        assert ran.json[name] == pytest.approx(value)
    again = known("evaluate", "clustering", "--method", "components", "--json")
    assert again.status == 0, again.err
    assert again.json["bcubed_f"] != ran.json["bcubed_f"]


def test_a_file_that_holds_no_clusters_is_refused(known: Facedex, tmp_path: Path) -> None:
    for table, message in (
        (pa.table({"face": [1, 2]}), "columns 'face'"),
        (pa.table({"face": ["a"], "cluster": [1]}), "whole numbers"),
        (pa.table({"face": [1, 1], "cluster": [0, 1]}), "a face twice"),
        (
            pa.table({"face": pa.array([], pa.int64()), "cluster": pa.array([], pa.int64())}),
            "no row",
        ),
    ):
        pq.write_table(table, tmp_path / "wrong.parquet")
        ran = known("evaluate", "clustering", "--clusters", str(tmp_path / "wrong.parquet"))
        assert ran.status == 2
        assert message in ran.err
