"""Faces made of numbers that are as alike, and as different, as those of a real model.

An identity is uniform on the sphere in 126 dimensions; a face is normalise(identity + 0.80 *
LogNormal(0, 0.35) * N(0, I / 126)), turned into 512 dimensions by one fixed orthonormal frame.
Two strangers in a million then have a cosine above 0.408, and 91.65 % of the pairs of one person
do: what was measured of buffalo_l (ENGINE.md section 4). A person has 1 to 39 faces, each number as
likely, and rows come in random order.

Attributes hang on the identity (gender, age, home region, glasses), on the sample (quality), or on
nothing (source, time, most tags, `slot`). `position` orders the identities by the side of 32
planes on which they lie, first plane first, and the faces of one person by their own noise: a band
of it is one neighbourhood. A query is a new face, never a row: nine of ten of persons who have
rows, one of ten of a stranger. Vectors are rounded to float16 and then made unit: what a store of
float16 keeps is the same direction, so the exact neighbours are the same for all.
"""

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.filtered.data.grid import POSITION, SLOT, slots
from benchmarks.filtered.values import DataSet, Numbers
from retrieval.values import Floats, HalfRows, UnitRows, unit_rows

Doubles = npt.NDArray[np.float64]

LATENT: Final = 126
DIMENSION: Final = 512
NOISE: Final = 0.80
NOISE_SPREAD: Final = 0.35
BLOCK_ROWS: Final = 16_384
STRANGERS: Final = 0.1  # of the queries
DONE: Final = "population.json"  # written last

SOURCES: Final = 20
REGIONS: Final = 100
CAMERAS_A_REGION: Final = 5
AT_HOME: Final = 0.6  # of a person's faces, in the home region
TAG_SHARES: Final = {  # five of each, on any face
    "common": 5e-2,
    "usual": 1e-2,
    "rare": 1e-3,
    "scarce": 1e-4,
    "single": 1e-5,
}
TAGS_OF_A_SHARE: Final = 5
GLASSES: Final = "glasses"  # three of ten persons, on four of five of their faces
FIRST_DAY: Final = datetime(2012, 1, 1, tzinfo=UTC)
SECONDS: Final = 12 * 365 * 86_400  # over which faces were captured

# Directions of the latent space that attributes depend on.
_GENDER_AXIS: Final = 0
_AGE_AXIS: Final = 1
_REGION_AXIS: Final = 2
_POSITION_AXES: Final = slice(8, 40)
_WITHIN_AXIS: Final = 40
_FRAME_SEED: Final = 126_512
_PERSONS, _ROWS, _BLOCK, _QUERIES, _TUNING = range(5)  # streams of random numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """What to make. The same numbers always give the same faces."""

    rows: int
    seed: int
    faces_a_person: int = 20  # on average; 1 to twice that less one
    strangers: float = STRANGERS  # share of the queries whose person has no row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Persons:
    centres: Floats  # (p, LATENT) unit length
    female: npt.NDArray[np.bool_]
    ages: Doubles  # years in the middle of the time covered
    regions: Numbers
    glasses: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Samples:
    """One draw for each face of a block, before it becomes columns."""

    latent: Floats  # (n, LATENT) unit length
    scale: Doubles  # (n,) of the noise
    within: Doubles  # (n,) of the noise along one direction, standard normal


def faces(rows: int, *, seed: int, queries: int = 1000, tuning: int = 500) -> DataSet:
    """A data set in memory: 2 KiB a row."""
    return faces_of(Population(rows=rows, seed=seed), queries=queries, tuning=tuning)


def faces_of(population: Population, *, queries: int = 1000, tuning: int = 500) -> DataSet:
    """The same of any population."""
    rows = population.rows
    vectors = np.empty((rows, DIMENSION), np.float32)
    tables, start = [], 0
    for halves, table in blocks(population):
        vectors[start : start + len(halves)] = unit_rows(halves)
        tables.append(table)
        start += len(halves)
    vectors.setflags(write=False)
    asked, asked_table = questions(population, queries, stream=_QUERIES)
    tuned, tuned_table = questions(population, tuning, stream=_TUNING)
    return DataSet(
        name=f"faces-{rows}-seed{population.seed}",
        vectors=UnitRows(vectors),
        table=pa.concat_tables(tables),
        queries=asked,
        query_table=asked_table,
        tuning=tuned,
        tuning_table=tuned_table,
    )


def blocks(population: Population) -> Iterator[tuple[HalfRows, pa.Table]]:
    """The rows in order: (n, 512) float16 vectors and their attributes, a block at a time."""
    owners = _owners(population)
    persons = _persons(_random(population, _PERSONS), int(owners.max()) + 1)
    for number, start in enumerate(range(0, population.rows, BLOCK_ROWS)):
        random = _random(population, _BLOCK, number)
        mine = owners[start : start + BLOCK_ROWS]
        samples = _samples(random, persons, mine)
        yield _embedded(samples).astype("<f2"), _table(random, persons, mine, samples)


def write(population: Population, folder: Path) -> None:
    """Write `vectors.npy` (float16), `attributes.parquet` and what they were made of.

    Memory does not grow with the rows, but for the identities: 25 bytes a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype="<f2", shape=(population.rows, DIMENSION)
    )
    start, writer = 0, None
    for halves, table in blocks(population):
        vectors[start : start + len(halves)] = halves
        writer = writer or pq.ParquetWriter(folder / "attributes.parquet", table.schema)
        writer.write_table(table)
        start += len(halves)
    if writer is not None:
        writer.close()
    vectors.flush()
    (folder / DONE).write_text(json.dumps(asdict(population)), encoding="utf-8")


def questions(
    population: Population, count: int, *, stream: int = _QUERIES
) -> tuple[UnitRows, pa.Table]:
    """New faces to ask for, with the attributes they would have."""
    random = _random(population, stream)
    owners = _owners(population)
    persons = _persons(_random(population, _PERSONS), int(owners.max()) + 1)
    strangers = _persons(random, round(population.strangers * count))
    known = random.choice(np.unique(owners), count - len(strangers.centres))
    mine = np.concatenate((known, len(persons.centres) + np.arange(len(strangers.centres))))
    everyone = _joined(persons, strangers)
    mine = random.permutation(mine)
    samples = _samples(random, everyone, mine)
    return unit_rows(_embedded(samples)), _table(random, everyone, mine, samples)


def tag(kind: str, number: int) -> str:
    """The name of a tag of TAG_SHARES.

    >>> tag("rare", 3)
    'rare-3'
    """
    return f"{kind}-{number}"


def _random(population: Population, *stream: int) -> np.random.Generator:
    return np.random.default_rng([population.seed, *stream])


def _owners(population: Population) -> Numbers:
    """The person of each row, in random order."""
    random = _random(population, _ROWS)
    mean = population.faces_a_person
    persons = math.ceil(1.5 * population.rows / mean) + 64
    counts = random.integers(1, 2 * mean, persons)
    owners = np.repeat(np.arange(persons), counts)[: population.rows]
    return random.permutation(owners)


def _persons(random: np.random.Generator, count: int) -> _Persons:
    centres = random.standard_normal((count, LATENT), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    # Each coordinate times this is close to a standard normal number.
    normal = centres[:, :8].astype(np.float64) * math.sqrt(LATENT)
    years = 38 + 16 * (0.8 * normal[:, _AGE_AXIS] + 0.6 * random.standard_normal(count))
    return _Persons(
        centres=centres,
        female=centres[:, _GENDER_AXIS] > 0,
        ages=np.clip(years, 6, 90),
        regions=np.minimum((REGIONS * _shares(normal[:, _REGION_AXIS])).astype(int), REGIONS - 1),
        glasses=random.random(count) < 0.3,
    )


def _joined(one: _Persons, other: _Persons) -> _Persons:
    return _Persons(
        centres=np.concatenate((one.centres, other.centres)),
        female=np.concatenate((one.female, other.female)),
        ages=np.concatenate((one.ages, other.ages)),
        regions=np.concatenate((one.regions, other.regions)),
        glasses=np.concatenate((one.glasses, other.glasses)),
    )


def _samples(random: np.random.Generator, persons: _Persons, owners: Numbers) -> _Samples:
    noise = random.standard_normal((len(owners), LATENT), dtype=np.float32)
    scale = NOISE * random.lognormal(0, NOISE_SPREAD, len(owners))
    latent = noise * (scale / math.sqrt(LATENT)).astype(np.float32)[:, None]
    latent += persons.centres[owners]
    latent /= np.linalg.norm(latent, axis=1, keepdims=True)
    return _Samples(latent=latent, scale=scale, within=noise[:, _WITHIN_AXIS].astype(np.float64))


def _embedded(samples: _Samples) -> Floats:
    return samples.latent @ frame().T


@functools.cache
def frame() -> Floats:
    """(512, 126): orthonormal columns, the same for every seed."""
    raw = np.random.default_rng(_FRAME_SEED).standard_normal((DIMENSION, LATENT))
    return np.linalg.qr(raw).Q.astype(np.float32)


def _table(
    random: np.random.Generator, persons: _Persons, owners: Numbers, samples: _Samples
) -> pa.Table:
    count = len(owners)
    seconds = random.integers(0, SECONDS, count)
    years = (seconds - SECONDS / 2) / (365 * 86_400)
    away = random.random(count) >= AT_HOME
    regions = np.where(away, random.integers(0, REGIONS, count), persons.regions[owners])
    cameras = CAMERAS_A_REGION * regions + random.integers(0, CAMERAS_A_REGION, count)
    ages = persons.ages[owners] + years + random.standard_normal(count)
    heights = np.where(persons.female[owners], 165, 178) + 7 * random.standard_normal(count)
    quality = 1 / (1 + (samples.scale / NOISE) ** 2) + 0.05 * random.standard_normal(count)
    return pa.table(
        {
            "gender": _words(["male", "female"], persons.female[owners].astype(np.int64)),
            "age": ages,
            "source": _words(_numbered("source", SOURCES), random.integers(0, SOURCES, count)),
            "tags": _tags(random, persons.glasses[owners]),
            "captured_at": _moments(seconds),
            "quality": np.clip(quality, 0, 1),
            "region": _words(_numbered("region", REGIONS), regions),
            "camera": cameras,
            "height_cm": pa.array(heights.round(1), mask=random.random(count) < 0.35),
            "consent": pa.array(random.random(count) < 0.7, mask=random.random(count) < 0.1),
            SLOT: slots(random, count),
            POSITION: _positions(persons.centres[owners], samples.within),
        }
    )


def _tags(random: np.random.Generator, glasses: npt.NDArray[np.bool_]) -> pa.Array:
    """The tags of each face, in the order of the words; two of a hundred lists are NULL."""
    count = len(glasses)
    words = [GLASSES]
    has = [glasses & (random.random(count) < 0.8)]
    for kind, share in TAG_SHARES.items():
        words += [tag(kind, number) for number in range(TAGS_OF_A_SHARE)]
        has += [random.random(count) < share for _ in range(TAGS_OF_A_SHARE)]
    known = random.random(count) >= 0.02
    matrix = np.stack(has, axis=1) & known[:, None]
    ends = np.concatenate(([0], np.cumsum(matrix.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(ends), _words(words, np.nonzero(matrix)[1]), mask=pa.array(~known)
    )


def _positions(centres: Floats, within: Doubles) -> Doubles:
    """0 to 1: the bits of the planes, and below the last of them the face's own noise."""
    sides = centres[:, _POSITION_AXES] > 0
    bits = sides.shape[1]
    places: Doubles = sides @ (0.5 ** np.arange(1, bits + 1))
    inside: Doubles = 1 / (1 + np.exp(-1.702 * within))
    places += inside * 0.5**bits
    return places


def _shares(normal: Doubles) -> Doubles:
    """The share of standard normal numbers that are less."""
    return np.array([0.5 * math.erfc(-number / math.sqrt(2)) for number in normal])


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word}-{number:02d}" for number in range(count)]


def _words(words: list[str], codes: npt.NDArray[Any]) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(codes))


def _moments(seconds: Numbers) -> pa.Array:
    first = int(FIRST_DAY.timestamp())
    return pa.array((first + seconds) * 1_000_000).cast(pa.timestamp("us", "UTC"))
