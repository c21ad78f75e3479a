"""Made-up faces that are hard to group: as many faces a person as MS1M-584K, far more noise.

People and pictures are those of benchmarks/people.py. A person has LogNormal(0, 0.7) times a number
of faces that makes 600,000 faces of 8,600 persons, and noise is that at which the best of DBSCAN
groups 600,000 faces with a pairwise F of about .68, as it does MS1M-584K (Yang et al., CVPR 2019
print .6793). Sets of other sizes have the same noise and as many faces a person, so they are
easier where they are smaller.

In the second kind of set some faces are unrecognisable: pulled towards one direction that belongs
to nobody, until they are more alike to each other than to their own person. Their quality is low.

Calibration faces are of other people, drawn with the same noise; none is pulled.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.filtered.data.generator import LATENT, NOISE, frame
from benchmarks.people import Crowd
from retrieval.values import Floats, HalfRows

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROWS: Final = 600_000
PERSONS: Final = 8_600
SIZE_SPREAD: Final = 0.7
# On 600,000 faces the best threshold, of a grid of .01, gives a pairwise F of .677 to components,
# .691 to DBSCAN with 5 samples; tuned over samples too it reaches .709 (12 samples).
HARD_NOISE: Final = 1.38
PULLED: Final = 0.03  # of the faces, where any are
# Of a pulled face, the squared cosine to the common direction: two of them have at least the first
# as their own, so each is within reach of any threshold for faces of one person.
PULL: Final = (0.5, 0.9)
CALIBRATION_PERSONS: Final = 3_000
CALIBRATION_FACES: Final = 10
BLOCK_ROWS: Final = 16_384
DONE: Final = "recipe.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a set is made of; the same recipe gives the same set."""

    rows: int = ROWS
    noise: float = HARD_NOISE
    pulled: float = 0.0
    seed: int = 0

    @property
    def persons(self) -> int:
        """People in the set."""
        return max(1, round(self.rows * PERSONS / ROWS))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FaceSet:
    """Faces, who they are, and others to calibrate with; the vectors stay on disk."""

    recipe: Recipe
    vectors: HalfRows  # (n, 512) memory-mapped
    persons: Ints  # (n,)
    quality: Doubles  # (n,)
    pulled: npt.NDArray[np.bool_]  # (n,)
    calibration_vectors: HalfRows  # (m, 512)
    calibration_persons: Ints  # (m,)
    calibration_quality: Doubles  # (m,)


def face_set(recipe: Recipe, work: Path) -> FaceSet:
    """A set, made in the work folder where it is not there yet."""
    folder = folder_of(recipe, work)
    if not (folder / DONE).exists():
        write(recipe, folder)
    return FaceSet(
        recipe=recipe,
        vectors=np.load(folder / "vectors.npy", mmap_mode="r"),
        persons=np.load(folder / "persons.npy"),
        quality=np.load(folder / "quality.npy"),
        pulled=np.load(folder / "pulled.npy"),
        calibration_vectors=np.load(folder / "calibration_vectors.npy"),
        calibration_persons=np.load(folder / "calibration_persons.npy"),
        calibration_quality=np.load(folder / "calibration_quality.npy"),
    )


def folder_of(recipe: Recipe, work: Path) -> Path:
    """Where a set lies.

    >>> folder_of(Recipe(rows=60_000, noise=1.25, pulled=0.03), Path("w")).as_posix()
    'w/faces-60000-1.25-0.03-0'
    """
    return work / f"faces-{recipe.rows}-{recipe.noise:g}-{recipe.pulled:g}-{recipe.seed}"


def write(recipe: Recipe, folder: Path) -> None:
    """Make a set in a folder, a block of faces at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    people = Crowd.drawn(recipe.persons, seed=recipe.seed)
    owners = people.random.permutation(_owners(people.random, recipe))
    # Another stream, so that a set with pulled faces is the one without but for those.
    random = np.random.default_rng([recipe.seed, recipe.rows, 1])
    pull = np.where(
        random.random(len(owners)) < recipe.pulled, random.uniform(*PULL, len(owners)), 0
    )
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype="<f2", shape=(len(owners), frame().shape[0])
    )
    quality = np.empty(len(owners))
    for begin in range(0, len(owners), BLOCK_ROWS):
        some = slice(begin, begin + BLOCK_ROWS)
        made, quality[some] = people.faces(owners[some], noise=recipe.noise)
        vectors[some] = towards(nobody(), made, pull[some])
    vectors.flush()
    others = Crowd.drawn(CALIBRATION_PERSONS, seed=recipe.seed + 1_000)
    known = np.repeat(np.arange(CALIBRATION_PERSONS), CALIBRATION_FACES)
    calibration, calibration_quality = others.faces(known, noise=recipe.noise)
    arrays = {
        "persons": owners,
        "quality": odds(quality, noise=recipe.noise) * (1 - pull),
        "pulled": pull > 0,
        "calibration_vectors": calibration.astype("<f2"),
        "calibration_persons": known,
        "calibration_quality": odds(calibration_quality, noise=recipe.noise),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / DONE).write_text(json.dumps(asdict(recipe)), encoding="utf-8")


def odds(quality: Doubles, *, noise: float) -> Doubles:
    """Quality as the odds of being recognised among faces with so much noise.

    Half of the faces of such a set would be below the quality floor by the generator's own scale,
    which is that of clean pictures; here a face of the median noise has .8.
    """
    return 1 / (1 + (1 / quality - 1) * (NOISE / (2 * noise)) ** 2)


def towards(direction: Floats, vectors: Floats, pull: Doubles) -> Floats:
    """Unit vectors blended with one direction, until the squared cosine to it is `pull`.

    What a vector had along the direction is taken out first; those with no pull stay as they are.
    """
    along = vectors @ direction
    across = vectors - along[:, None] * direction
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    blended = np.sqrt(1 - pull)[:, None] * across + np.sqrt(pull)[:, None] * direction
    return np.where(pull[:, None] > 0, blended, vectors).astype(np.float32)


def nobody() -> Floats:
    """The direction of what cannot be recognised, (512,) unit length, where faces can be."""
    random = np.random.default_rng(9)
    direction = frame() @ random.standard_normal(LATENT).astype(np.float32)
    return (direction / np.linalg.norm(direction)).astype(np.float32)


def _owners(random: np.random.Generator, recipe: Recipe) -> Ints:
    """The person of each face: shares are drawn, and rounded so that they add up to the rows."""
    shares = random.lognormal(0, SIZE_SPREAD, recipe.persons)
    ends = np.round(np.cumsum(shares) / shares.sum() * recipe.rows).astype(np.int64)
    return np.repeat(np.arange(recipe.persons), np.diff(ends, prepend=0))
