"""Labelled faces made of numbers, for the tests of evaluation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.store.labelled import Labelled
from retrieval.values import unit_rows


def people(
    counts: Sequence[int], *, dimension: int = 32, noise: float = 1.0, seed: int = 0
) -> Labelled:
    """So many faces of each person: a direction of the person's own, and noise of that length.

    A face's quality says how little of the noise it got; the picture of person p's face k is named
    `dir/P<p>/P<p>_<k>.jpg`, k from 1.
    """
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(len(counts)), counts)
    centres = random.standard_normal((len(counts), dimension))[persons]
    quality = random.random(len(persons))
    spread = noise * (1.5 - quality)[:, None]
    return Labelled(
        vectors=unit_rows(centres + spread * random.standard_normal(centres.shape)),
        faces=np.arange(len(persons)) + 100,
        persons=persons,
        quality=quality,
        images=tuple(
            f"dir/P{person}/P{person}_{face:04d}.jpg"
            for person, count in enumerate(counts)
            for face in range(1, count + 1)
        ),
        groups=(None,) * len(persons),
    )


def with_quality(faces: Labelled, quality: npt.NDArray[np.float64]) -> Labelled:
    """The same faces with another quality."""
    return Labelled(
        vectors=faces.vectors,
        faces=faces.faces,
        persons=faces.persons,
        quality=quality,
        images=faces.images,
        groups=faces.groups,
    )
