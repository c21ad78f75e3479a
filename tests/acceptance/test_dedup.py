"""`facedex dedup` from outside: copies are found, shown, marked, and unmarked."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from tests.acceptance.conftest import Facedex
from tests.labelled import people
from tests.pictures import astronaut, encoded, group

KEEP, DROP = (17, 107, 52), (154, 52, 18)  # colours of a page in daylight
UNMARKED = "NOT 'duplicate' = ANY(tags)"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """An astronaut with three copies, one of them in a tar, and a group with one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(astronaut(), "PNG"))
    (folder / "b.jpg").write_bytes(encoded(astronaut(), "JPEG", quality=50))
    smaller = ImageOps.mirror(astronaut().resize((300, 300)))
    (folder / "c.jpg").write_bytes(encoded(smaller, "JPEG", quality=90))
    (folder / "f.jpg").write_bytes(encoded(group(), "JPEG", quality=90))
    (folder / "g.jpg").write_bytes(encoded(group().crop((60, 0, 1160, 860)), "JPEG", quality=80))
    cropped = tmp_path / "cropped.png"
    cropped.write_bytes(encoded(astronaut().crop((60, 10, 500, 470)), "PNG"))
    with tarfile.open(folder / "more.tar", "w") as archive:
        archive.add(cropped, arcname="in/d.png")
    return folder


def ingest(facedex: Facedex, folder: Path, *names: str, source: str = "camera") -> None:
    paths = [str(folder / name) for name in names]
    ran = facedex("ingest", *paths, "--source", source, "--workers", "1")
    assert ran.status == 0, ran.err


def members(out: Path) -> dict[int, dict[str, tuple[str, str]]]:
    """Decision and reason of each picture, by group."""
    found: dict[int, dict[str, tuple[str, str]]] = {}
    for row in pq.read_table(out / "groups.parquet").to_pylist():
        name = Path(row["member"] or row["path"]).name
        found.setdefault(row["group"], {})[name] = (row["decision"], row["reason"])
    return found


@pytest.mark.weights
def test_copies_are_found_marked_and_unmarked(
    facedex: Facedex, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for names in (["a.png"], [".", "more.tar"]):  # of two as good, the first one is kept
        ingest(facedex, pictures, *names)

    def count(*where: str) -> int:
        return int(facedex("count", *where, "--json").json["count"])

    faces = count()
    ran = facedex("dedup", "--out", str(out), "--json")
    assert ran.status == 0, ran.err
    assert {name: ran.json[name] for name in ("groups", "duplicates", "report", "missing")} == {
        "groups": 2,
        "duplicates": 4,
        "report": str(out / "report.html"),
        "missing": [],
    }
    [astronauts, groups] = members(out).values()
    decisions = {name: decision for name, (decision, _) in astronauts.items()}
    assert decisions == {"a.png": "keep", "b.jpg": "drop", "c.jpg": "drop", "d.png": "drop"}
    assert "mirrored, 300 x 300 pixels instead of 512 x 512" in astronauts["c.jpg"][1]
    assert "cropped to 77%" in astronauts["d.png"][1]
    assert {name: decision for name, (decision, _) in groups.items()} == {
        "f.jpg": "keep",
        "g.jpg": "drop",
    }
    csv = pc.read_csv(out / "groups.csv")
    assert csv["reason"].to_pylist() == pq.read_table(out / "groups.parquet")["reason"].to_pylist()
    assert count("--where", UNMARKED) == 0  # nobody said anything of tags yet

    before = (out / "groups.parquet").read_bytes(), (out / "report.html").read_bytes()
    applied = facedex("dedup", "--out", str(out), "--apply", "--json").json
    after = (out / "groups.parquet").read_bytes(), (out / "report.html").read_bytes()
    assert after == before
    dropped = count("--where", "'duplicate' = ANY(tags)")
    assert applied["marked"] == dropped > 4
    assert count("--where", UNMARKED) == faces - dropped
    again = facedex("dedup", "--out", str(out), "--apply", "--json").json
    assert (again["groups"], again["marking"], again["marked"]) == (2, None, 0)

    number = str(applied["marking"])
    listed = facedex("dedup", "--list", "--json").json["markings"]
    assert [(str(one["marking"]), one["faces"], one["undone_at"]) for one in listed] == [
        (number, dropped, None)
    ]
    assert facedex("dedup", "--undo", number, "--json").json["unmarked"] == dropped
    assert facedex("dedup", "--undo", number, "--json").json["undone"] is None
    assert count("--where", "tags IS NULL") == faces


@pytest.mark.weights
def test_a_preferred_source_is_kept_and_a_gone_original_told(
    facedex: Facedex, pictures: Path, tmp_path: Path
) -> None:
    ingest(facedex, pictures, "c.jpg", source="archive")
    ingest(facedex, pictures, "a.png", "b.jpg")
    (pictures / "b.jpg").unlink()
    out = tmp_path / "out"
    ran = facedex("dedup", "--prefer", "archive", "--out", str(out))
    assert ran.status == 0, ran.err
    assert "1 groups, 1 to drop" in ran.out
    assert "1 originals could not be read" in ran.err
    assert "b.jpg: no such file or folder" in ran.err
    [group_] = members(out).values()
    assert {name: decision for name, (decision, _) in group_.items()} == {
        "c.jpg": "keep",
        "a.png": "drop",
    }


@pytest.mark.weights
def test_the_report_shows_in_a_browser(facedex: Facedex, pictures: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    out, shot = tmp_path / "out", tmp_path / "shot.png"
    ingest(facedex, pictures, "a.png", "b.jpg")
    assert facedex("dedup", "--out", str(out)).status == 0
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,1200",
         f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
         (out / "report.html").as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    seen = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    for colour in (KEEP, DROP):
        assert (seen == colour).all(axis=1).sum() > 300
    # Both pictures are there: a page of text has few shades between black and white.
    assert len(np.unique(seen, axis=0)) > 5_000
    told = (out / "report.html").read_text()
    assert len(re.findall(r'<img alt="(?:keep|drop): image \d+"', told)) == 2


def test_imported_faces_and_persons_are_compared_by_vectors(
    facedex: Facedex, tmp_path: Path
) -> None:
    faces = people([4] * 60 + [1] * 400, noise=0.3, seed=7)
    vectors = np.concatenate([faces.vectors, faces.vectors[:1]])
    names = [f"p{person}" for person in faces.persons]
    names[2:4] = ["other", "other"]  # of the first person's four faces
    table = pa.table(
        {
            "id": [f"face {number}" for number in range(len(vectors))],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 32),
            "person": [*names, names[0]],
        }
    )
    pq.write_table(table, tmp_path / "faces.parquet")
    assert facedex("import", str(tmp_path / "faces.parquet"), "--space", "made@1").status == 0
    out = tmp_path / "out"
    found = facedex("dedup", "--level", "face", "--out", str(out), "--json").json
    assert found["without_image"] == len(vectors)
    told = pq.read_table(out / "groups.parquet").to_pylist()
    same = [row for row in told if row["external_id"] in ("face 0", f"face {len(vectors) - 1}")]
    assert [row["decision"] for row in same] == ["keep", "drop"]
    assert "by vectors alone" in same[1]["reason"]

    refused = facedex("dedup", "--level", "person", "--out", str(out))
    assert refused.status != 0  # nothing says how alike strangers are
    assert facedex("evaluate", "verification", "--calibrate", "--json").status == 0
    ran = facedex("dedup", "--level", "person", "--out", str(out), "--apply", "--json")
    assert ran.status == 0, ran.err
    told = pq.read_table(out / "groups.parquet").to_pylist()
    assert [(row["decision"], row["name"]) for row in told] == [
        ("keep", names[0]),
        ("drop", "other"),
    ]
    assert ran.json["linked"] == 1
    # Persons that are linked are no news.
    assert facedex("dedup", "--level", "person", "--out", str(out), "--json").json["groups"] == 0
    undone = facedex("dedup", "--undo", str(ran.json["marking"]), "--json").json
    assert undone["unlinked"] == 1
    assert facedex("dedup", "--level", "person", "--out", str(out), "--json").json["groups"] == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--apply", "--list"),
        ("--out", "x", "--undo", "1"),
        ("--out", "x", "--fmr", "0.1"),
        ("--level", "frame", "--out", "x"),
        ("--level", "track", "--prefer", "camera", "--out", "x"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(facedex: Facedex, words: tuple[str, ...]) -> None:
    ran = facedex("dedup", *words)
    assert ran.status == 2
    assert "--" in ran.err
