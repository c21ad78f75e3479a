"""What questions are asked with: vectors of pictures, of stored faces, of files."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import RefusedImageError, UsageError
from retrieval.store import collections as tenants
from retrieval.store.faces import vector_of
from retrieval.values import Box, FaceId, UnitRows, unit_rows

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from indexer.enrolling import Portrait


class Probes:
    """Vectors in the spaces of the configured collection."""

    def __init__(self, facedex: "Facedex") -> None:
        self._facedex = facedex

    def portrait(
        self, path: str | Path, *, region: Box | None = None, pick: int | None = None
    ) -> "Portrait":
        """A picture with its faces, of which one is meant: the largest central one by default.

        Args:
            path: the picture.
            region: pixels of the upright picture; the face that fits it best.
            pick: 1 is the largest face, 2 the next.

        Raises:
            SpaceMismatchError: the collection's vectors are of another model, or from outside.
            UsageError: the picture cannot be read, or shows no such face.
        """
        from indexer.enrolling import read_portrait
        from indexer.sources.pictures import printable

        reader = self._facedex.reader_of(self._facedex.collection_if_any())
        try:
            return read_portrait(Path(path), reader, region=region, pick=pick)
        except RefusedImageError as refusal:
            raise UsageError(f"{printable(path)} is no probe: {refusal}") from refusal

    def of_picture(
        self, path: str | Path, *, region: Box | None = None, pick: int | None = None
    ) -> UnitRows:
        """The identity of the face that is meant, (1, d); errors as of `portrait`."""
        return unit_rows(self.portrait(path, region=region, pick=pick).face.vector)

    def of_face(self, face: int) -> UnitRows:
        """The stored identity of a face, (1, d)."""
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            space = tenants.space_of(connection, tenant)
            return vector_of(connection, FaceId(face), collection=tenant, space=space)

    def look_of_picture(
        self, path: str | Path, *, region: Box | None = None, pick: int | None = None
    ) -> UnitRows:
        """The face that is meant in the face-text space, (1, d); errors as of `portrait`."""
        return self._facedex.words.probe_of_portrait(self.portrait(path, region=region, pick=pick))

    def look_of_face(self, face: int) -> UnitRows:
        """A stored face in the face-text space, (1, d)."""
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            space = tenants.text_space_of(connection, tenant)
            return vector_of(connection, FaceId(face), collection=tenant, space=space)

    def of_array(self, path: Path) -> UnitRows:
        """The vectors of a .npy file, (d,) or (n, d)."""
        try:
            return unit_rows(np.load(path, allow_pickle=False), dimension=self._dimension())
        except (OSError, ValueError, EOFError) as cause:
            raise UsageError(f"{path} is no .npy file of numbers: {cause}") from cause

    def of_table(self, path: Path) -> UnitRows:
        """The column `vector` of a Parquet file, (n, d)."""
        import pyarrow.parquet

        try:
            column = pyarrow.parquet.read_table(path, columns=["vector"])["vector"]
        except (OSError, pyarrow.ArrowException) as cause:
            raise UsageError(
                f"{path} is no Parquet file with a column `vector`: {cause}"
            ) from cause
        return unit_rows(column.to_pylist(), dimension=self._dimension())

    def _dimension(self) -> int:
        tenant = self._facedex.collection()
        with self._facedex.store.reading() as connection:
            return tenants.space_of(connection, tenant).dimension
