"""Frames of tracks through the command line: near-copies marked, tracks that hold a person."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.tracks import FRAMES, KINDS, Planted, figures, planted_faces
from tests.acceptance.conftest import Facedex, run

PERSONS = 12
UNMARKED = "NOT 'duplicate' = ANY(tags)"


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_faces(PERSONS, seed=8)


@pytest.fixture(scope="module")
def home(new_home, planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tracks hold the faces of each of the first two persons; the last person has none."""
    folder: Path = new_home()
    rows = range(len(planted.tracks))
    tracks = [f"cam/{of}" for of in planted.tracks.tolist()]
    for row in rows:
        if planted.tracks[row] < 2 and row % 2:
            tracks[row] += "b"
    path = tmp_path_factory.mktemp("given") / "frames.parquet"
    pq.write_table(
        pa.table(
            {
                "id": [f"frame {row}" for row in rows],
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(planted.vectors.astype("<f2").reshape(-1)), 512
                ),
                "person": [f"person {of}" for of in planted.tracks.tolist()],
                "track": [None if of == PERSONS - 1 else name for of, name in
                          zip(planted.tracks.tolist(), tracks, strict=True)],
                "frame": list(rows),
                "quality": planted.quality,
                **{name: planted.pose[:, at].astype(float)
                   for at, name in enumerate(("yaw", "pitch", "roll"))},
                "shelf": [row % 3 for row in rows],
            }
        ),
        path,
    )  # fmt: skip
    ran = run(folder, "import", str(path), "--space", "made@1", "--json")
    assert ran.status == 0, ran.err
    return folder


@pytest.fixture
def facedex(home: Path) -> Facedex:
    return lambda *words, **options: run(home, *words, **options)


def test_near_copies_of_frames_are_marked_and_every_mode_stays(
    facedex: Facedex, planted: Planted, tmp_path: Path
) -> None:
    out = tmp_path / "frames"
    ran = facedex("dedup", "--level", "track", "--out", str(out), "--apply", "--json")
    assert ran.status == 0, ran.err
    told = ran.json
    tracked = planted.tracks < PERSONS - 1
    assert told["faces_in_tracks"] == tracked.sum()
    assert told["tracks"] == PERSONS + 1  # two persons have two each, one has none
    assert told["kept"] + told["duplicates"] == told["faces_in_tracks"]
    members = pq.read_table(out / "groups.parquet").to_pylist()
    rows = {int(one["external_id"].split()[1]): one for one in members}
    dropped = np.zeros(len(planted.tracks), np.bool_)
    for row, one in rows.items():
        dropped[row] = one["decision"] == "drop"
    found = figures(planted.tracks[tracked], planted.modes[tracked], ~dropped[tracked])
    assert found["modes_kept"] == 1.0
    assert found["tracks_kept"] == PERSONS - 1
    # Of tracks that were cut in two, each part keeps its own.
    assert found["kept"] <= 0.12 + 2 * len(KINDS) / tracked.sum() * 1.2
    reason = next(one["reason"] for one in members if one["decision"] == "drop")
    assert reason.startswith("a near-copy of face ")
    assert "vectors alike to 0.9" in reason
    assert "the head turned by " in reason
    kept = next(one for one in members if one["decision"] == "keep")
    assert "alike in track cam/" in kept["reason"]
    assert facedex("count", "--where", UNMARKED, "--json").json["count"] == (~dropped).sum()
    again = facedex("dedup", "--level", "track", "--out", str(out), "--apply", "--json").json
    assert (again["duplicates"], again["marked"]) == (told["duplicates"], 0)
    assert "frames that are near-copies of another" in (out / "report.html").read_text()
    assert facedex("dedup", "--undo", str(told["marking"])).status == 0
    assert facedex("count", "--where", "'duplicate' = ANY(tags)", "--json").json["count"] == 0


def test_a_filter_chooses_frames_and_a_source_means_nothing(
    facedex: Facedex, planted: Planted, tmp_path: Path
) -> None:
    asked = ("dedup", "--level", "track", "--out", str(tmp_path / "some"), "--json")
    some = facedex(*asked, "--where", "shelf = 0").json
    passing = np.arange(len(planted.tracks)) % 3 == 0
    assert some["faces_in_tracks"] == (passing & (planted.tracks < PERSONS - 1)).sum()
    none = facedex(*asked, "--where", "shelf = 99").json
    assert (none["groups"], none["tracks"]) == (0, 0)
    refused = facedex(*asked, "--prefer", "camera")
    assert (refused.status, "--prefer goes with pictures" in refused.err) == (2, True)


def test_a_search_says_which_tracks_hold_a_person(
    facedex: Facedex, planted: Planted, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.npy"
    np.save(probe, planted.vectors[0])
    asked = ("search", "--vector", str(probe), "--group-by", "track", "--recall", "exact")
    hits = facedex(*asked, "--min-similarity", "0.4", "--json").json["hits"]
    assert {hit["track"] for hit in hits} == {"cam/0", "cam/0b"}
    assert {hit["person"] for hit in hits} == {"person 0"}
    for hit in hits:
        rows = np.flatnonzero(planted.tracks == 0)
        rows = rows[rows % 2 == (1 if hit["track"].endswith("b") else 0)]
        best = rows[(planted.vectors[rows] @ planted.vectors[0]).argmax()]
        assert hit["external_id"] == f"frame {best}"
    everybody = facedex(*asked, "-k", "1000", "--json").json
    tracks = [hit["track"] for hit in everybody["hits"]]
    assert len(set(tracks) - {None}) == PERSONS + 1
    assert tracks.count(None) == len(KINDS) * FRAMES  # faces without a track stand alone
    assert everybody["plan"]["group_by"] == "track"
    shown = facedex(*asked, "-k", "2", "--explain").out
    assert shown.splitlines()[0].endswith("track")
    assert shown.splitlines()[1].endswith("cam/0")
    assert "grouped by track" in shown


def test_many_questions_tell_the_tracks_of_each(
    facedex: Facedex, planted: Planted, tmp_path: Path
) -> None:
    rows = [len(KINDS) * FRAMES * person for person in (3, 5)]
    file = tmp_path / "queries.parquet"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(planted.vectors[rows].reshape(-1)), 512)
    pq.write_table(pa.table({"vector": vectors}), file)
    ran = facedex("search", "--queries", str(file), "--group-by", "track", "-k", "1", "--json")
    assert [[hit["track"] for hit in hits] for hits in ran.json["queries"]] == [
        ["cam/3"],
        ["cam/5"],
    ]
