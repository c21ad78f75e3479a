"""What two collections share (retrieval/curation/overlap.py): identities, pictures, names.

Compared are persons by their templates, and faces of nobody, each kind with each. Pictures are the
same where their bytes are (retrieval/store/shared.py); whoever knows more ways in which pictures
are the same, such as likeness of pixels, adds rows to that table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from facedex.recognition import FMR_OF_ONE_PERSON
from facedex.thresholds import Asked, Strangers
from retrieval.curation.overlap import (
    Met,
    Names,
    Side,
    Verdict,
    faces_say,
    met,
    names_say,
    shared_names,
)
from retrieval.errors import SpaceMismatchError, UsageError
from retrieval.filters.parse import parse
from retrieval.graph.gathering import gathered
from retrieval.index.exact import paired_cosines
from retrieval.people.calibration import Calibration
from retrieval.store.calibrations import calibration_of, stored_calibration
from retrieval.store.collections import space_of
from retrieval.store.holdings import Kind
from retrieval.store.people.reading import names_of
from retrieval.store.shared import shared_pictures
from retrieval.values import Collection, PersonId, Space

if TYPE_CHECKING:
    from facedex.handle import Facedex

Progress = Callable[[int, int], None]
PERSON, FACE = "person", "face"
IDENTITIES: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("person_id_a", pa.int64()),
        ("person_a", pa.string()),
        ("face_a", pa.int64()),
        ("person_id_b", pa.int64()),
        ("person_b", pa.string()),
        ("face_b", pa.int64()),
        ("similarity", pa.float64()),
        ("names", pa.string()),
        ("expected_false", pa.float64()),
    ]
)
NAMES: Final = pa.schema(
    [
        ("name", pa.string()),
        ("person_id_a", pa.int64()),
        ("person_id_b", pa.int64()),
        ("similarity", pa.float64()),
        ("faces_are", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """One kind of row of a collection against one of the other."""

    of: tuple[str, str]  # PERSON or FACE
    sizes: tuple[int, int]
    threshold: float
    found: Met
    expected: np.ndarray[Any, np.dtype[np.float64]]  # false pairs as alike as each; NaN: unknown
    expected_in_all: float | None

    @property
    def kind(self) -> str:
        """Its name."""
        return "-".join(self.of)


@dataclass(frozen=True, eq=False, kw_only=True)
class Overlap:
    """What two collections share."""

    comparisons: tuple[Comparison, ...]
    pictures: pa.Table
    names: pa.Table  # persons of one name, and what their faces say
    identities: pa.Table  # pairs that are alike, with the expected number of false ones so alike

    def figures(self) -> dict[str, Any]:
        """As JSON holds them."""
        sizes = {one.of: one.sizes for one in self.comparisons}
        persons, faces = sizes[PERSON, PERSON], sizes[FACE, FACE]
        said, are = self.identities["names"].to_pylist(), self.names["faces_are"].to_pylist()
        return {
            "persons_a": persons[0],
            "persons_b": persons[1],
            "faces_without_person_a": faces[0],
            "faces_without_person_b": faces[1],
            **{f"{what}s_shared_{side}": self._shared(what, place)
               for place, side in enumerate("ab") for what in (PERSON, FACE)},
            "pictures_shared": self.pictures.num_rows,
            "names_shared": self.names.num_rows,
            "names_shared_faces_unlike": are.count(Verdict.UNLIKE),
            "names_shared_faces_unsure": are.count(Verdict.UNSURE),
            "alike_under_other_names": said.count(Names.OTHER),
            "compared": [
                {
                    "kind": one.kind,
                    "pairs": len(one.found.ones),
                    "threshold": one.threshold,
                    "expected_false": one.expected_in_all,
                }
                for one in self.comparisons
            ],
        }  # fmt: skip

    def _shared(self, what: str, place: int) -> int:
        """How many persons, or faces of nobody, of one side are in the other collection."""
        mine = [one for one in self.comparisons if one.of[place] == what]
        numbers = [one.found[place] for one in mine]
        return len(np.unique(np.concatenate(numbers)))


class Comparing:
    """Two collections of one space, open."""

    def __init__(self, facedex: "Facedex", one: str, other: str) -> None:
        if one == other:
            raise UsageError(
                "name two collections; `facedex dedup` and `facedex labels` look into one"
            )
        self._facedex = facedex
        self.tenants = (facedex.collection(one), facedex.collection(other))
        self._space = self._one_space()
        self._sides = [
            {PERSON: self._side(tenant, Kind.PERSONS), FACE: self._side(tenant, Kind.FACES)}
            for tenant in self.tenants
        ]

    def all(self, asked: Asked, progress: Progress) -> Overlap:
        """All that is shared."""
        strangers = Strangers(self._calibration, asked)
        names = tuple(self._names(side[PERSON]) for side in self._sides)
        compared = tuple(
            self._compared(of, strangers, progress)
            for of in product((PERSON, FACE), (PERSON, FACE))
        )
        return Overlap(
            comparisons=compared,
            pictures=shared_pictures(self._facedex.store, *self.tenants),
            names=self._shared_names(names[0], names[1], strangers),
            identities=_identities(compared, names[0], names[1]),
        )

    def _one_space(self) -> Space:
        with self._facedex.store.reading() as connection:
            spaces = [space_of(connection, tenant) for tenant in self.tenants]
        if spaces[0].id != spaces[1].id:
            raise SpaceMismatchError(
                f"collection '{self.tenants[0].name}' is in space '{spaces[0].name}', and"
                f" '{self.tenants[1].name}' in '{spaces[1].name}': their vectors mean nothing to"
                " each other"
            )
        return spaces[0]

    def _side(self, tenant: Collection, kind: Kind) -> Side:
        index = self._facedex.opened(self._facedex.holding(tenant, kind))
        index.refresh()
        of_nobody = None
        if kind is Kind.FACES:
            of_nobody = parse("person_id IS NULL", self._facedex.fields(tenant))
        rows = gathered(index.view, of_nobody)
        return Side(view=index.view, filter=of_nobody, rows=rows.ordered(np.argsort(rows.ids)))

    def _calibration(self) -> Calibration:
        """What the first collection measured, or the second, or what came with the model."""
        with self._facedex.store.reading() as connection:
            for tenant in self.tenants:
                own = stored_calibration(connection, collection=tenant, space=self._space)
                if own is not None:
                    return own
            return calibration_of(connection, collection=self.tenants[0], space=self._space)

    def _names(self, side: Side) -> Mapping[int, str | None]:
        with self._facedex.store.reading() as connection:
            found = names_of(connection, [PersonId(one) for one in side.rows.ids.tolist()])
        return dict(found.items())

    def _compared(
        self, of: tuple[str, str], strangers: Strangers, progress: Progress
    ) -> Comparison:
        one, other = (side[what] for side, what in zip(self._sides, of, strict=True))
        templates = PERSON in of
        threshold_of = strangers.of_templates if templates else strangers.of_faces
        threshold = threshold_of(len(other))
        found = met(one, other, floor=threshold, progress=progress)
        pairs = float(len(one)) * len(other)
        alike = np.append(found.similarities, threshold)
        expected = strangers.false_pairs(alike, pairs=pairs, templates=templates)
        return Comparison(
            of=of,
            sizes=(len(one), len(other)),
            threshold=threshold,
            found=found,
            expected=expected[:-1],
            expected_in_all=None if np.isnan(expected[-1]) else float(expected[-1]),
        )

    def _shared_names(
        self,
        mine: Mapping[int, str | None],
        its: Mapping[int, str | None],
        strangers: Strangers,
    ) -> pa.Table:
        pairs = np.array(shared_names(mine, its), np.int64).reshape(-1, 2)
        one, other = (side[PERSON] for side in self._sides)
        similarities = paired_cosines(
            one.view.vectors_of(pairs[:, 0])[0], other.view.vectors_of(pairs[:, 1])[0]
        )
        alike = unlike = strangers.of_templates(len(other))
        if strangers.calibration is not None:
            asked = strangers.calibration.for_fmr_of_templates(FMR_OF_ONE_PERSON)
            unlike = min(alike, float(asked.similarity))
        return pa.Table.from_pylist(
            [
                {
                    "name": mine[one],
                    "person_id_a": one,
                    "person_id_b": other,
                    "similarity": similarity,
                    "faces_are": str(faces_say(similarity, alike=alike, unlike=unlike)),
                }
                for (one, other), similarity in zip(
                    pairs.tolist(), similarities.tolist(), strict=True
                )
            ],
            schema=NAMES,
        )


def _identities(
    compared: tuple[Comparison, ...],
    mine: Mapping[int, str | None],
    its: Mapping[int, str | None],
) -> pa.Table:
    tables = [IDENTITIES.empty_table()]
    for one in compared:
        columns: dict[str, Any] = {
            "kind": [one.kind] * len(one.found.ones),
            "similarity": one.found.similarities,
            "expected_false": pa.array(one.expected, mask=np.isnan(one.expected)),
        }
        named: list[list[str | None]] = []
        for side, what, numbers, names in zip(
            "ab", one.of, (one.found.ones, one.found.others), (mine, its), strict=True
        ):
            nothing = pa.nulls(len(numbers), pa.int64())
            persons = what == PERSON
            told = [names.get(number) if persons else None for number in numbers.tolist()]
            columns[f"person_id_{side}"] = numbers if persons else nothing
            columns[f"face_{side}"] = nothing if persons else numbers
            columns[f"person_{side}"] = told
            named.append(told)
        columns["names"] = [str(names_say(*pair)) for pair in zip(*named, strict=True)]
        tables.append(pa.table({name: columns[name] for name in IDENTITIES.names}, IDENTITIES))
    return pa.concat_tables(tables)
