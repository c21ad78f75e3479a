"""Does the quality of a face tell whether it will be missed?

LFW's people with at least four pictures. The first picture of each, clean and in every cell of the
grid of `degraded.py`, is a probe against the mean of the person's other pictures; a miss is a
similarity below the threshold of FMR 1e-4, measured on the clean probes of all people. What is
shipped was fitted on the people with even numbers (`--fit` prints it); every line but the first
measures the others. Intervals are percentiles of 1,000 bootstrap samples of people.

    python -m benchmarks.quality ../shared/data/lfw --cache /tmp/quality

prints JSON lines: what clean pictures give; how well misses are foretold, for each kind pooled and
for each level that has enough of both; what the floor refuses; templates; error against discard.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.degraded import CLEAN, ENROLLED, GRID, PROBE, TINY, Readings, Rows, readings
from retrieval.models.arcface import RECOGNISABLE as ARCFACE
from retrieval.models.catalogue import W600K_MBF
from retrieval.models.sface import RECOGNISABLE as SFACE
from retrieval.people.template import templates
from retrieval.quality import QUALITY_FLOOR, Recognisability, evidence
from retrieval.values import UnitRows

MODELS: Final = {"arcface": ARCFACE[W600K_MBF.sha256], "sface": SFACE}
FMR: Final = 1e-4
SAMPLES: Final = 1_000
FEWEST: Final = 20  # misses and hits of a level that is told alone
DISCARDED: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BINS: Final = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)  # of quality

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
Line = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Every face that was found, and what is known of it."""

    rows: Rows  # (n,) of `degraded.ROW`
    unit: Doubles  # (n, d)
    norm: Doubles  # (n,)
    quality: Doubles  # (n,)

    def of(self, *uses: str) -> Places:
        """The faces of some uses."""
        return np.flatnonzero(np.isin(self.rows["use"], uses))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """Probes against the person they show, and against everybody else."""

    probes: Places  # (n,) into `Faces`
    genuine: Doubles  # (n,)
    impostor: Doubles  # (n * (people - 1),)


def main() -> None:
    """Print the lines."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("lfw", type=Path)
    options.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    options.add_argument("--people", type=int, default=610)
    options.add_argument("--cache", type=Path, default=Path("/tmp/facedex-quality"))  # noqa: S108
    options.add_argument("--fit", action="store_true", help="print coefficients, and nothing else")
    chosen = options.parse_args()
    for models in chosen.models:
        read = readings(
            chosen.lfw / "lfw_deepfunneled.tar.gz",
            models=models,
            people=chosen.people,
            cache=chosen.cache,
        )
        faces = judged_faces(read, by=MODELS[models])
        lines = fitted(faces, by=MODELS[models]) if chosen.fit else figures(faces, read)
        for line in lines:
            print(json.dumps({"models": models, **line}), flush=True)


def figures(faces: Faces, read: Readings) -> Iterator[Line]:
    """Everything that is measured, a line for each part."""
    everybody = against_templates(faces, faces.of(CLEAN), gallery=faces.of(CLEAN))
    threshold = threshold_of(everybody.impostor)
    yield clean(faces, everybody, threshold=threshold)
    tested = faces.rows["person"] % 2 == 1
    probes = faces.of(PROBE)
    compared = against_templates(faces, probes[tested[probes]], gallery=faces.of(CLEAN))
    yield from foretold(faces, compared, read.rows, threshold=threshold)
    yield calibrated(faces, compared, threshold=threshold)
    yield floor(faces, compared, threshold=threshold)
    yield tiny(faces, read.rows, threshold=threshold)
    yield from galleries(faces, tested)
    yield discarded(faces, compared, threshold=threshold)


def judged_faces(read: Readings, *, by: Recognisability) -> Faces:
    """The faces that were found, judged by what is shipped."""
    rows = read.rows[read.rows["found"]]
    raw = read.raw[read.rows["found"]].astype(np.float64)
    norm = np.linalg.norm(raw, axis=1)
    quality = [
        by.total(
            vector_norm=float(length),
            size=float(row["size"]),
            detector_score=float(row["detector_score"]),
            sharpness=float(row["sharpness"]),
        )
        for row, length in zip(rows, norm, strict=True)
    ]
    return Faces(rows=rows, unit=raw / norm[:, None], norm=norm, quality=np.array(quality))


# --- comparing -------------------------------------------------------------------------------


def against_templates(faces: Faces, probes: Places, *, gallery: Places) -> Comparisons:
    """First pictures against the plain mean of the other clean pictures of each person."""
    probes = probes[faces.rows["picture"][probes] == 0]
    enrolled = gallery[faces.rows["picture"][gallery] > 0]
    enrolled = enrolled[np.isin(faces.rows["person"][enrolled], faces.rows["person"][probes])]
    return compared_with(faces, probes, enrolled, weight=np.ones(len(enrolled)))


def compared_with(
    faces: Faces, probes: Places, enrolled: Places, *, weight: Doubles
) -> Comparisons:
    """Probes against the weighted mean of what is enrolled, ordered by person."""
    persons, made = _means(faces.unit[enrolled], weight, faces.rows["person"][enrolled])
    return _split(faces, probes, faces.unit[probes] @ made.T, persons)


def best_of(faces: Faces, probes: Places, enrolled: Places) -> Comparisons:
    """Probes against the most similar face of each person."""
    owners = faces.rows["person"][enrolled]
    begins = np.flatnonzero(np.diff(owners, prepend=owners[0] - 1))
    scores = faces.unit[probes] @ faces.unit[enrolled].T
    return _split(faces, probes, np.maximum.reduceat(scores, begins, axis=1), owners[begins])


def threshold_of(impostor: Doubles) -> float:
    """The least similarity that at most FMR of the impostors exceed."""
    exceeding = int(FMR * len(impostor))
    return float(np.partition(impostor, -exceeding - 1)[-exceeding - 1])


def _means(vectors: Doubles, weight: Doubles, owners: Places) -> tuple[Places, Doubles]:
    begins = np.flatnonzero(np.diff(owners, prepend=owners[0] - 1))
    sums = np.add.reduceat(vectors * weight[:, None], begins, axis=0)
    return owners[begins], sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _split(faces: Faces, probes: Places, scores: Doubles, persons: Places) -> Comparisons:
    mated = faces.rows["person"][probes][:, None] == persons[None]
    known = mated.any(axis=1)  # all pictures of a person may have shown no face
    mated, scores = mated[known], scores[known]
    return Comparisons(probes=probes[known], genuine=scores[mated], impostor=scores[~mated])


# --- uncertainty -----------------------------------------------------------------------------


def interval(persons: Places, of: Callable[[Doubles], float]) -> list[float]:
    """95 % of what `of` gives for bootstrap samples of the people, as weights of the rows."""
    random = np.random.default_rng(0)
    _, owner = np.unique(persons, return_inverse=True)
    people = int(owner.max()) + 1
    found = [
        of(np.bincount(random.integers(0, people, people), minlength=people)[owner].astype(float))
        for _ in range(SAMPLES)
    ]
    return [round(float(edge), 4) for edge in np.nanquantile(found, (0.025, 0.975))]


def auc(score: Doubles, missed: Flags, weight: Doubles) -> float:
    """The chance that a miss has a lower score than a hit; ties count half (Mann-Whitney)."""
    values, place = np.unique(score, return_inverse=True)
    misses = np.bincount(place, weight * missed, len(values))
    hits = np.bincount(place, weight * ~missed, len(values))
    lower = np.cumsum(misses) - misses / 2
    whole = misses.sum() * hits.sum()
    return float((hits * lower).sum() / whole) if whole else float("nan")


def share(flags: Flags, weight: Doubles) -> float:
    """The weighted part of the rows that are flagged."""
    return float((flags * weight).sum() / weight.sum()) if weight.sum() else float("nan")


# --- lines -----------------------------------------------------------------------------------


def clean(faces: Faces, compared: Comparisons, *, threshold: float) -> Line:
    """What clean pictures give, and how many of them the floor refuses."""
    places = faces.of(CLEAN)
    quality = faces.quality[places]
    refused = quality < QUALITY_FLOOR
    weight = np.ones(len(places))
    persons = faces.rows["person"][places]
    return {
        "part": "clean",
        "people": len(np.unique(persons)),
        "faces": len(places),
        "threshold": round(threshold, 4),
        "impostor_pairs": len(compared.impostor),
        "fnmr": round(float((compared.genuine < threshold).mean()), 5),
        "floor": QUALITY_FLOOR,
        "refused": round(share(refused, weight), 5),
        "refused_interval": interval(persons, lambda w: share(refused, w)),
        "quality_quantiles": _quantiles(quality),
    }


def foretold(
    faces: Faces, compared: Comparisons, rows: Rows, *, threshold: float
) -> Iterator[Line]:
    """AUC of telling misses from hits, by quality and by its parts alone."""
    seen = faces.rows[compared.probes]
    tested = (rows["use"] == PROBE) & (rows["person"] % 2 == 1)
    for kind, levels in GRID.items():
        of_kind = seen["kind"] == kind
        lost = tested & (rows["kind"] == kind) & ~rows["found"]
        for level in (None, *levels):
            here = of_kind if level is None else of_kind & (seen["level"] == level)
            missing = lost if level is None else lost & (rows["level"] == level)
            line = {
                "part": "foretold",
                "kind": kind,
                "level": "all" if level is None else level,
                "no_face": int(missing.sum()),
                **_foretold(faces, compared, here, threshold=threshold),
            }
            yield line


def _foretold(faces: Faces, compared: Comparisons, here: Flags, *, threshold: float) -> Line:
    places = compared.probes[here]
    missed = compared.genuine[here] < threshold
    counts: Line = {"misses": int(missed.sum()), "hits": int((~missed).sum())}
    if min(missed.sum(), (~missed).sum()) < FEWEST:
        return {**counts, "auc": None}
    persons = faces.rows["person"][places]
    scores = _scores(faces, places)
    once = np.ones(len(places))
    found = {name: round(auc(score, missed, once), 4) for name, score in scores.items()}
    quality = scores.pop("quality")
    return {
        **counts,
        "auc": found.pop("quality"),
        "auc_interval": interval(persons, lambda w: auc(quality, missed, w)),
        "auc_alone": found,
        "auc_gain_interval": {
            name: interval(
                persons, lambda w, one=score: auc(quality, missed, w) - auc(one, missed, w)
            )
            for name, score in scores.items()
        },
    }


def _scores(faces: Faces, places: Places) -> dict[str, Doubles]:
    rows = faces.rows[places]
    return {
        "quality": faces.quality[places],
        "norm": faces.norm[places],
        "size": rows["side_px"],
        "sharpness": rows["sharpness"],
        "detector_score": rows["detector_score"],
    }


def calibrated(faces: Faces, compared: Comparisons, *, threshold: float) -> Line:
    """How many of the probes of a quality are missed."""
    quality = faces.quality[compared.probes]
    missed = compared.genuine < threshold
    bins = []
    for low, high in pairwise(BINS):
        here = (quality >= low) & (quality < high)
        if here.any():
            told = 1 / (1 + (quality[here] / (1 - quality[here])) ** 3)
            bins.append(
                {
                    "quality": [low, high],
                    "probes": int(here.sum()),
                    "missed": round(float(missed[here].mean()), 4),
                    "told": round(float(told.mean()), 4),
                }
            )
    return {"part": "calibration", "bins": bins}


def floor(faces: Faces, compared: Comparisons, *, threshold: float) -> Line:
    """What is refused of the degraded probes, and how alike strangers are below and above."""
    quality = faces.quality[compared.probes]
    missed = compared.genuine < threshold
    refused = quality < QUALITY_FLOOR
    return {
        "part": "floor",
        "probes": len(quality),
        "refused": round(float(refused.mean()), 4),
        "missed_of_refused": round(float(missed[refused].mean()), 4),
        "refused_of_missed": round(float(refused[missed].mean()), 4),
        "missed_of_accepted": round(float(missed[~refused].mean()), 4),
        "fmr_of_pairs": _pairs(faces, compared.probes, threshold=threshold),
    }


def _pairs(faces: Faces, places: Places, *, threshold: float) -> Line:
    """FMR between two degraded faces of different people, by where both lie to the floor."""
    unit, above = faces.unit[places], faces.quality[places] >= QUALITY_FLOOR
    persons = faces.rows["person"][places]
    strangers = persons[:, None] != persons[None]
    matches = (unit @ unit.T >= threshold) & strangers
    groups = {
        "both_below": ~above[:, None] & ~above[None],
        "one_below": above[:, None] != above[None],
        "both_above": above[:, None] & above[None],
    }
    return {
        name: float(f"{matches[group].sum() / (strangers & group).sum():.3g}")
        for name, group in groups.items()
    }


def tiny(faces: Faces, rows: Rows, *, threshold: float) -> Line:
    """Faces cut out and brought to 22 x 28 px: all people, against templates and one another."""
    compared = against_templates(faces, faces.of(TINY), gallery=faces.of(CLEAN))
    quality = faces.quality[compared.probes]
    return {
        "part": "22 x 28 px",
        "pictures": int((rows["use"] == TINY).sum()),
        "faces": len(quality),
        "missed": round(float((compared.genuine < threshold).mean()), 4),
        "fmr_against_clean_templates": float(f"{(compared.impostor >= threshold).mean():.3g}"),
        "fmr_of_pairs": _pairs(faces, compared.probes, threshold=threshold),
        "refused": round(float((quality < QUALITY_FLOOR).mean()), 4),
        "quality_quantiles": _quantiles(quality),
    }


def galleries(faces: Faces, tested: Flags) -> Iterator[Line]:
    """Templates by quality against plain means and best-of-n, clean and half degraded."""
    probes = faces.of(CLEAN, PROBE)
    probes = probes[tested[probes] & (faces.rows["picture"][probes] == 0)]
    all_clean = faces.of(CLEAN)
    all_clean = all_clean[tested[all_clean] & (faces.rows["picture"][all_clean] > 0)]
    for name, enrolled in {
        "clean": all_clean,
        "half degraded": _half_degraded(faces, all_clean, tested),
    }.items():
        ways = {
            "weighted": _by_quality(faces, probes, enrolled),
            "mean": compared_with(faces, probes, enrolled, weight=np.ones(len(enrolled))),
            "best_of_n": best_of(faces, probes, enrolled),
        }
        for which, kept in {
            "clean": faces.rows["use"][ways["mean"].probes] == CLEAN,
            "clean and degraded": np.ones(len(ways["mean"].probes), np.bool_),
        }.items():
            yield {
                "part": "templates",
                "gallery": name,
                "enrolled": len(enrolled),
                "probes": which,
                **_templates(faces, ways, kept),
            }


def _by_quality(faces: Faces, probes: Places, enrolled: Places) -> Comparisons:
    """Probes against the templates that are shipped."""
    persons, made = templates(
        UnitRows(faces.unit[enrolled].astype(np.float32)),
        faces.quality[enrolled],
        faces.rows["person"][enrolled],
    )
    return _split(faces, probes, faces.unit[probes] @ made.T.astype(np.float64), persons)


def _half_degraded(faces: Faces, all_clean: Places, tested: Flags) -> Places:
    """What is enrolled where half of the pictures of each person are degraded."""
    worse = faces.of(ENROLLED)
    worse = worse[tested[worse]]
    names = [(int(row["person"]), int(row["picture"])) for row in faces.rows]
    replaced = {names[place] for place in worse}
    kept = [place for place in all_clean if names[place] not in replaced]
    return np.array(sorted([*kept, *worse], key=lambda place: names[place]), np.int64)


def _templates(faces: Faces, ways: Mapping[str, Comparisons], kept: Flags) -> Line:
    persons = faces.rows["person"][ways["mean"].probes][kept]
    strangers = len(ways["mean"].impostor) // len(kept)
    margins, missed, line = {}, {}, {}
    for name, way in ways.items():
        threshold = threshold_of(way.impostor.reshape(len(kept), strangers)[kept].ravel())
        margins[name] = way.genuine[kept] - threshold
        missed[name] = (margins[name] < 0).astype(np.float64)
        line[name] = {
            "threshold": round(threshold, 4),
            "fnmr": round(float(missed[name].mean()), 5),
            "genuine": round(float(way.genuine[kept].mean()), 4),
            "margin": round(float(margins[name].mean()), 4),
        }
    for other in ("mean", "best_of_n"):
        line[f"weighted_minus_{other}"] = {
            "fnmr": _difference(persons, missed["weighted"] - missed[other]),
            "margin": _difference(persons, margins["weighted"] - margins[other]),
        }
    return line


def _difference(persons: Places, difference: Doubles) -> Line:
    """Paired; the thresholds stay what they are in all people."""
    return {
        "mean": round(float(difference.mean()), 5),
        "interval": interval(persons, lambda w: float((difference * w).sum() / w.sum())),
    }


def discarded(faces: Faces, compared: Comparisons, *, threshold: float) -> Line:
    """FNMR of the degraded probes when the worst by quality are dropped (ISO/IEC 29794-1)."""
    missed = compared.genuine < threshold
    persons = faces.rows["person"][compared.probes]
    steps = []
    for part in DISCARDED:
        kept = _kept(faces.quality[compared.probes], part)
        steps.append(
            {
                "discarded": part,
                "fnmr": round(float(missed[kept].mean()), 5),
                "interval": interval(persons[kept], lambda w, k=kept: share(missed[k], w)),
            }
        )
    rates = [step["fnmr"] for step in steps]
    return {
        "part": "error against discard",
        "probes": len(missed),
        "steps": steps,
        "rises": sum(after > before for before, after in pairwise(rates)),
    }


def _kept(quality: Doubles, discarded_part: float) -> Places:
    order = np.argsort(quality, kind="stable")
    return order[round(discarded_part * len(order)) :]


def _quantiles(quality: Doubles) -> dict[str, float]:
    parts = (0.0, 0.01, 0.05, 0.5, 0.95)
    return {f"{part:g}": round(float(np.quantile(quality, part)), 3) for part in parts}


# --- fitting ---------------------------------------------------------------------------------


def fitted(faces: Faces, *, by: Recognisability) -> Sequence[Line]:
    """Coefficients by logistic regression on the first pictures of people with even numbers."""
    everybody = against_templates(faces, faces.of(CLEAN), gallery=faces.of(CLEAN))
    compared = against_templates(faces, faces.of(CLEAN, PROBE), gallery=faces.of(CLEAN))
    seen = faces.rows[compared.probes]
    known = np.array(
        [
            (
                *evidence(
                    vector_norm=float(length) / by.typical_norm,
                    size=float(row["size"]),
                    detector_score=float(row["detector_score"]) - by.full_score,
                    sharpness=float(row["sharpness"]),
                ),
                1.0,
            )
            for row, length in zip(seen, faces.norm[compared.probes], strict=True)
        ]
    )
    hits = compared.genuine >= threshold_of(everybody.impostor)
    even = seen["person"] % 2 == 0
    found = _logistic(known[even], hits[even].astype(np.float64))
    names = ("norm", "size", "score", "sharpness", "best")
    return [{name: round(float(one), 2) for name, one in zip(names, found, strict=True)}]


def _logistic(known: Doubles, hits: Doubles) -> Doubles:
    """The most likely coefficients, by Newton's method."""
    found = np.zeros(known.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-known @ found))
        curve = known.T @ (known * (chance * (1 - chance))[:, None])
        found = found + np.linalg.solve(curve, known.T @ (hits - chance))
    return found


if __name__ == "__main__":
    main()
