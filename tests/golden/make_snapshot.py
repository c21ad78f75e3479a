"""Writes a golden snapshot of random vectors: run once for each format version, then keep it.

python -m tests.golden.make_snapshot URL_OF_AN_EMPTY_DATABASE
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import indexer.build
from retrieval.filters.parse import parse
from retrieval.index import lists
from retrieval.index.snapshot import FORMAT
from retrieval.reader import Reader
from retrieval.search import Question
from retrieval.store import schema
from retrieval.store.collections import declare
from retrieval.store.database import open_store
from retrieval.values import FieldType, UnitRows
from tests.galleries import clustered_vectors, gallery

HERE = Path(__file__).parent
ROWS = 200
FILTER = "age < 45 AND 'hat' = ANY(tags) OR shelf IN ('a', 'b') AND good"


def make(url: str, target: Path) -> None:
    """Build in a database, copy the snapshot, and note what it answers."""
    setattr(lists, "LISTED_ROWS_MIN", ROWS)  # noqa: B010
    with open_store(url) as store, tempfile.TemporaryDirectory() as home:
        schema.upgrade(store)
        made = gallery(store, name="golden", dimension=16, space="golden@1")
        with store.writing() as connection:
            declare(connection, made.collection, {"good": FieldType.BOOLEAN})
        vectors = clustered_vectors(ROWS, dimension=16, clusters=12)
        made.add(
            range(1, ROWS + 1),
            vectors,
            ages=[None if i % 7 == 0 else float(i % 90) for i in range(ROWS)],
            tags=[None if i % 5 == 0 else ["hat", "Ü"][: i % 3] for i in range(ROWS)],
            attributes=[
                json.dumps({"shelf": "abc"[i % 3], "good": i % 2 == 0} if i % 4 else {})
                for i in range(ROWS)
            ],
        )
        made.execute("UPDATE face SET captured_at = '2020-02-29 12:00+00' WHERE id < 50")
        report = indexer.build.build(made.holding, home=Path(home))
        index = Reader.open(made.holding, home=Path(home))
        queries = UnitRows(vectors[:3])
        questions = {
            None: Question(vectors=queries, count=5, recall="exact"),
            FILTER: Question(
                vectors=queries, count=5, recall="exact", filter=parse(FILTER, made.fields())
            ),
        }
        answers = [
            {
                "where": where,
                "hits": [
                    [[hit.face, hit.similarity] for hit in hits]
                    for hits in index.search(question).neighbours
                ],
            }
            for where, question in questions.items()
        ]
        shutil.copytree(report.folder, target)
    notes = {"queries": vectors[:3].tolist(), "answers": answers}
    target.with_suffix(".json").write_text(json.dumps(notes, indent=1) + "\n")


if __name__ == "__main__":
    make(sys.argv[1], HERE / f"snapshot_v{FORMAT}")
