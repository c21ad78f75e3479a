"""The SQL of docs/guides/quality.md gives stored faces the quality that they would get today."""

import re
from pathlib import Path

import cv2
import numpy as np
import psycopg
import pytest
import skimage.data

from facedex.handle import open_facedex

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "quality.md"
QUALITIES = "SELECT id, quality FROM face ORDER BY id"


@pytest.mark.weights
@pytest.mark.parametrize("models", ["arcface", "sface"])
def test_qualities_are_renewed_without_the_pictures(
    models: str, database_url: str, tmp_path: Path
) -> None:
    astronaut = np.asarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    (tmp_path / "in").mkdir()
    for side in (512, 200, 90, 50):
        small = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "in" / f"{side}.png"), small[:, :, ::-1])
    with open_facedex(home=tmp_path / "home", database_url=database_url, models=models) as facedex:
        facedex.ingest([tmp_path / "in"])
    (statement,) = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        fresh = connection.execute(QUALITIES).fetchall()
        connection.execute("UPDATE face SET quality = NULL")
        connection.execute(statement)
        renewed = connection.execute(QUALITIES).fetchall()
    assert len(fresh) == 4
    assert min(quality for _, quality in fresh) < 0.5 < max(quality for _, quality in fresh)
    for (face, quality), (again, now) in zip(fresh, renewed, strict=True):
        assert face == again
        assert now == pytest.approx(quality, abs=1e-5)
