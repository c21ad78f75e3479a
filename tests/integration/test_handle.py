"""What only the whole, put together, can get wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from facedex.handle import open_facedex
from indexer.build import REBUILD_ROWS_MIN
from indexer.bulk.importing import ImportRequest
from retrieval.store.snapshots import sole_builder


def test_a_write_succeeds_while_another_process_builds_the_index(
    database_url: str, tmp_path: Path
) -> None:
    rows, dimension = REBUILD_ROWS_MIN + 10, 8
    vectors = np.random.default_rng(0).standard_normal(rows * dimension).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension)
    pq.write_table(pa.table({"vector": column}), tmp_path / "in.parquet")
    request = ImportRequest(path=tmp_path / "in.parquet", collection="default", space="mine@1")
    with open_facedex(home=tmp_path / "home", database_url=database_url) as facedex:
        facedex.create("default", demographics=False)
        with sole_builder(facedex.store, collection=facedex.collection()):
            assert facedex.import_file(request).rows == rows
            assert facedex.index_status().snapshot is None
        assert facedex.index_status().rows == rows
        assert facedex.build_index().rows == rows
