"""Vectors of other programs, in files as those programs write them."""

import json
import pickle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from indexer.bulk import importing
from indexer.bulk.formats import Format
from indexer.bulk.importing import ImportReport, ImportRequest, import_file
from retrieval.errors import SchemaMismatchError, UsageError
from retrieval.store.database import Store

RAW = np.random.default_rng(3).standard_normal((25, 6)).astype(np.float32)
UNIT = (RAW / np.linalg.norm(RAW.astype(np.float64), axis=1, keepdims=True)).astype("<f2")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_ROWS_MAX", 10)


def put_in(store: Store, path: Path, format_: Format, **facts: Any) -> ImportReport:
    request = ImportRequest(path=path, format=format_, collection="c", space="s", **facts)
    return import_file(store, request)


def faces(store: Store, columns: str) -> list[tuple[Any, ...]]:
    statement = (
        f"SELECT {columns} FROM face JOIN vector ON face_id = face.id"
        " LEFT JOIN person ON person.id = person_id ORDER BY face.id"
    )
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def stored(store: Store) -> np.ndarray:
    return np.stack([np.frombuffer(data, "<f2") for (data,) in faces(store, "data")])


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, ">f4"])
def test_npy_comes_in_with_and_without_attributes(
    store: Store, tmp_path: Path, number: Any
) -> None:
    np.save(tmp_path / "v.npy", RAW.astype(number))
    assert put_in(store, tmp_path / "v.npy", Format.NPY).rows == 25
    assert np.abs(stored(store).astype(float) - UNIT.astype(float)).max() < 2e-3
    beside = pa.table({"id": [f"n{n}" for n in range(25)], "row": list(range(25))})
    pq.write_table(beside, tmp_path / "a.parquet", row_group_size=7)
    pyarrow.csv.write_csv(beside, tmp_path / "a.csv")
    for attributes in (tmp_path / "a.parquet", tmp_path / "a.csv"):
        assert put_in(store, tmp_path / "v.npy", Format.NPY, attributes=attributes).rows == 25
    found = faces(store, "external_id, attributes")[25:]
    assert found == [(f"n{n}", {"row": n}) for n in range(25)]


def test_npy_that_does_not_fit_is_refused(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", RAW[0])
    np.save(tmp_path / "whole.npy", RAW.astype(int))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "v.npy", RAW)
    pq.write_table(pa.table({"row": [1, 2]}), tmp_path / "short.parquet")
    for name in ("flat", "whole"):
        with pytest.raises(SchemaMismatchError, match=r"no \(n, d\) array of floating"):
            put_in(store, tmp_path / f"{name}.npy", Format.NPY)
    with pytest.raises(UsageError, match="damaged or of another format"):
        put_in(store, tmp_path / "objects.npy", Format.NPY)
    with pytest.raises(SchemaMismatchError, match=r"25 rows, .*short.parquet 2"):
        put_in(store, tmp_path / "v.npy", Format.NPY, attributes=tmp_path / "short.parquet")
    with pytest.raises(UsageError, match="only npy and faiss"):
        put_in(store, tmp_path / "short.parquet", Format.PARQUET, attributes=tmp_path / "v.npy")


def test_clip_retrieval_comes_in_part_by_part(store: Store, tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for part, (start, end) in enumerate([(0, 12), (12, 13), (13, 25)]):
        np.save(tmp_path / "img_emb" / f"img_emb_{part}.npy", RAW[start:end].astype(np.float16))
        paths = [f"p{n}.jpg" for n in range(start, end)]
        extra = {} if part == 1 else {"caption": [f"c{n}" for n in range(start, end)]}
        table = pa.table({"image_path": paths, **extra})
        pq.write_table(table, tmp_path / "metadata" / f"metadata_{part}.parquet")
    assert put_in(store, tmp_path, Format.CLIP_RETRIEVAL).rows == 25
    assert np.abs(stored(store).astype(float) - UNIT.astype(float)).max() < 2e-3
    assert faces(store, "attributes")[12:14] == [
        ({"image": "p12.jpg"},),
        ({"image": "p13.jpg"},),
    ]
    with store.reading() as connection:
        rows = connection.execute(
            text(
                "SELECT attributes ->> 'image' AS image, text, provider"
                " FROM caption JOIN face ON face.id = face_id ORDER BY face_id"
            )
        ).all()
    captioned = [n for n in range(25) if n != 12]
    assert rows == [(f"p{n}.jpg", f"c{n}", "stated") for n in captioned]
    (tmp_path / "metadata" / "metadata_2.parquet").unlink()
    with pytest.raises(SchemaMismatchError, match="3 arrays in img_emb and 2 tables"):
        put_in(store, tmp_path, Format.CLIP_RETRIEVAL)


@pytest.mark.parametrize("lines", [True, False])
def test_deepface_comes_in_from_json(store: Store, tmp_path: Path, *, lines: bool) -> None:
    records = [
        {
            "identity": f"img/{n}.jpg",
            "hash": "x",
            "embedding": RAW[n].tolist(),
            "target_x": n,
            "target_y": 2,
            "target_w": 10,
            "target_h": 20,
        }
        for n in range(25)
    ]
    path = tmp_path / "faces.json"
    told = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    path.write_text(told, encoding="utf-8")
    assert put_in(store, path, Format.DEEPFACE).rows == 25
    assert (stored(store) == UNIT).all()
    assert faces(store, "box, attributes")[3] == ([3, 2, 13, 22], {"image": "img/3.jpg"})


def test_deepface_comes_in_from_represent_and_from_its_table(store: Store, tmp_path: Path) -> None:
    area = {"x": 1, "y": 2, "w": 3, "h": 4, "left_eye": [1, 1], "right_eye": None}
    record = {"embedding": RAW[0].tolist(), "facial_area": area, "face_confidence": 0.75}
    (tmp_path / "r.json").write_text(json.dumps([record]), encoding="utf-8")
    put_in(store, tmp_path / "r.json", Format.DEEPFACE)
    numbers = ",".join(map(str, RAW[1].tolist()))
    (tmp_path / "t.csv").write_text(
        "id,img_name,face,face_shape,model_name,embedding\n"
        f'7,007,\\x00,"{{1,2,3}}",ArcFace,"{{{numbers}}}"\n',
        encoding="utf-8",
    )
    put_in(store, tmp_path / "t.csv", Format.DEEPFACE)
    assert (stored(store) == UNIT[:2]).all()
    assert faces(store, "external_id, box, detector_score, attributes") == [
        (None, [1, 2, 4, 6], 0.75, {}),
        ("7", None, None, {"image": "007", "model_name": "ArcFace"}),
    ]


def test_a_pickle_is_never_opened(store: Store, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "ds_model_arcface.pkl"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UsageError, match="would run any code"):
        put_in(store, path, Format.DEEPFACE)
    assert not (tmp_path / "exploded").exists()


def test_immich_comes_in_with_its_persons_and_boxes(store: Store, tmp_path: Path) -> None:
    corners = "boundingBoxX1,boundingBoxY1,boundingBoxX2,boundingBoxY2"
    lines = [f"faceId,embedding,originalPath,name,id,assetId,{corners},imageWidth"]
    for n, name in enumerate(['"Ann, B."', "", '""', "42"]):
        vector = "[" + ",".join(map(str, RAW[n].tolist())) + "]"
        lines.append(f'f-{n},"{vector}",/photos/{n}.jpg,{name},f-{n},a-{n},1,2,3,4,640')
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert put_in(store, tmp_path / "faces.csv", Format.IMMICH).rows == 4
    assert (stored(store) == UNIT[:4]).all()
    found = faces(store, "external_id, person.name, box, attributes")
    assert [row[:2] for row in found] == [
        ("f-0", "Ann, B."), ("f-1", None), ("f-2", None), ("f-3", "42"),
    ]  # fmt: skip
    assert found[0][2:] == ([1, 2, 3, 4], {"image": "/photos/0.jpg", "assetId": "a-0"})


def flat() -> faiss.Index:
    return faiss.IndexFlatIP(6)


def graph() -> faiss.Index:
    return faiss.IndexHNSWFlat(6, 8, faiss.METRIC_L2)


def lists() -> faiss.Index:
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(6), 6, 4, faiss.METRIC_L2)
    index.cp.min_points_per_centroid = 1
    index.train(RAW)
    return index


@pytest.mark.parametrize("made", [flat, graph, lists])
def test_faiss_gives_back_the_vectors_that_went_in(store: Store, tmp_path: Path, made: Any) -> None:
    index = made()
    index.add(RAW)
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    assert put_in(store, tmp_path / "v.faiss", Format.FAISS).rows == 25
    assert (stored(store) == UNIT).all()
    assert faces(store, "external_id") == [(None,)] * 25


@pytest.mark.parametrize("made", [lambda: faiss.IndexIDMap(flat()), lists,
                                  lambda: faiss.IndexIDMap2(lists())])  # fmt: skip
def test_faiss_ids_become_ours(store: Store, tmp_path: Path, made: Any) -> None:
    index = made()
    ids = np.random.default_rng(1).permutation(1000)[:25]
    index.add_with_ids(RAW, ids)
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    pq.write_table(pa.table({"row": np.argsort(ids)}), tmp_path / "a.parquet")
    put_in(store, tmp_path / "v.faiss", Format.FAISS, attributes=tmp_path / "a.parquet")
    order = np.argsort(ids)
    assert (stored(store) == UNIT[order]).all()
    assert faces(store, "external_id, attributes") == [(str(ids[n]), {"row": n}) for n in order]


def test_faiss_without_whole_vectors_is_refused(store: Store, tmp_path: Path) -> None:
    index = faiss.IndexScalarQuantizer(6, faiss.ScalarQuantizer.QT_8bit)
    index.train(RAW)
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    with pytest.raises(SchemaMismatchError, match="holds no whole vectors"):
        put_in(store, tmp_path / "v.faiss", Format.FAISS)
    (tmp_path / "v.faiss").write_bytes(b"nothing of FAISS")
    with pytest.raises(UsageError, match="no index of FAISS"):
        put_in(store, tmp_path / "v.faiss", Format.FAISS)
