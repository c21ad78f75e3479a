"""Each kind of evaluation as a page: which tables and which curves it shows."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from retrieval.evaluation.captions import (
    CaptionsReport,
    Direction,
    SentencesReport,
    SkewReport,
)
from retrieval.evaluation.clustering import ClusteringReport
from retrieval.evaluation.curves import THRESHOLDS
from retrieval.evaluation.discard import DiscardReport
from retrieval.evaluation.groups import Differential, GroupReport, GroupsReport
from retrieval.evaluation.identification import THRESHOLDS as FPIR_THRESHOLDS
from retrieval.evaluation.identification import GalleryReport, IdentificationReport
from retrieval.evaluation.listed import ListedReport
from retrieval.evaluation.report import Drawing, Line, Page, Table
from retrieval.evaluation.resampling import Doubles, Measure
from retrieval.evaluation.verification import DRAWN_EVERY, VerificationReport

MEASURE = ("value", "95 % from", "to")


def verification_page(report: VerificationReport, listed: ListedReport | None) -> Page:
    """ROC, DET and error rates by threshold."""
    shown = slice(None, None, DRAWN_EVERY)
    fmr, fnmr, at = report.curve.fmr[shown], report.curve.fnmr[shown], THRESHOLDS[shown]
    band = report.band
    fine = report.curve.fmr > 0  # logarithms end where nothing was seen
    x, y = report.curve.fmr[fine], report.curve.fnmr[fine]
    rates = (
        Line(name="FMR", x=at, y=_seen(fmr), low=band.fmr_low, high=band.fmr_high),
        Line(name="FNMR", x=at, y=_seen(fnmr), low=band.fnmr_low, high=band.fnmr_high),
    )
    told = (
        f"{report.faces:,} faces of {report.persons:,} persons: {report.genuine:,} genuine and"
        f" {report.impostors:,} impostor pairs. Intervals from draws of persons."
    )
    return Page(
        title="Verification",
        notes=(
            told,
            *(f"FMR {fmr:g}: fewer than 30 matches, not given" for fmr in report.not_carried),
        ),
        tables=(
            *(() if listed is None else (_listed_table(listed),)),
            Table(
                title="All pairs",
                header=("figure", *MEASURE, "threshold"),
                rows=(
                    ("AUC", *cells(report.auc), ""),
                    ("EER", *cells(report.eer), ""),
                    *(
                        (f"TAR at FMR {one.fmr:g}", *cells(one.tar), f"{one.threshold:.4f}")
                        for one in report.at_fmr
                    ),
                ),
            ),
        ),
        drawings=(
            _over_fmr("roc", "ROC", "TAR", Line(name="all pairs", x=x, y=1 - y)),
            _over_fmr("det", "DET", "FNMR", Line(name="all pairs", x=x, y=_seen(y))),
            Drawing(
                name="rates",
                title="Error rates by threshold",
                x="threshold (cosine)",
                y="rate",
                lines=rates,
                y_logarithmic=True,
            ),
        ),
        curves=pa.table(
            {
                "threshold": at,
                "fmr": fmr,
                "fmr_low": band.fmr_low,
                "fmr_high": band.fmr_high,
                "fnmr": fnmr,
                "fnmr_low": band.fnmr_low,
                "fnmr_high": band.fnmr_high,
            }
        ),
    )


def identification_page(report: IdentificationReport) -> Page:
    """FNIR at FPIR and CMC by size of gallery, and the trade-off of each."""
    told = (
        f"{report.mated:,} persons with two faces or more are enrolled with all but one,"
        f" {report.strangers:,} persons are strangers; {report.splits} random splits;"
        f" {report.refused:,} faces below the quality floor."
    )
    return Page(
        title="Open-set identification",
        notes=(
            told,
            *(f"FPIR {one:g}: fewer than 30 strangers, not given" for one in report.not_carried),
        ),
        tables=(
            Table(
                title="FNIR at FPIR",
                header=("gallery", "scoring", "FPIR", "FNIR", *MEASURE[1:], "spread", "threshold"),
                rows=tuple(row for one in report.galleries for row in _fnir_rows(one)),
            ),
            Table(
                title="FNIR by template less FNIR by best-of-n",
                header=("gallery", "FPIR", "change", *MEASURE[1:]),
                rows=tuple(
                    (f"{one.persons:,}", f"{one.fpir:g}", *cells(one.fnir_change))
                    for one in report.gains
                ),
            ),
            Table(
                title="CMC: own person among the best",
                header=("gallery", "scoring", "rank", "share", *MEASURE[1:]),
                rows=tuple(
                    (f"{one.persons:,}", one.scoring, str(rank), *cells(share))
                    for one in report.galleries
                    for rank, share in one.ranks
                ),
            ),
        ),
        drawings=(
            Drawing(
                name="fnir",
                title="FNIR against FPIR",
                x="FPIR",
                y="FNIR",
                lines=tuple(
                    Line(name=_name(one), x=one.fpir[seen], y=_seen(one.fnir[seen]))
                    for one in report.galleries
                    for seen in [one.fpir > 0]
                ),
                x_logarithmic=True,
                y_logarithmic=True,
            ),
            Drawing(
                name="fpir",
                title="FPIR by threshold",
                x="threshold (cosine)",
                y="FPIR",
                lines=tuple(
                    Line(name=_name(one), x=FPIR_THRESHOLDS, y=_seen(one.fpir))
                    for one in report.galleries
                ),
                y_logarithmic=True,
            ),
        ),
        curves=pa.concat_tables(map(_open_set_curve, report.galleries)),
    )


def groups_page(report: GroupsReport) -> Page:
    """FMR and FNMR of each group, and how far they lie apart."""
    everybody = (report.whole, *report.groups)
    places = np.arange(len(report.groups), dtype=np.float64)
    told = (
        f"At the threshold {report.threshold:.4f}. FMR is that of impostor pairs within a group;"
        " the whole is the pairs of all groups together."
    )
    return Page(
        title="Error rates by group",
        notes=(
            told,
            *(f"Left out: {why}" for why in report.refused),
            f"{report.without_group:,} faces are of unknown group.",
        ),
        tables=(
            Table(
                title="Groups",
                header=(
                    "group",
                    "persons",
                    "genuine",
                    "impostor",
                    "FMR",
                    *MEASURE[1:],
                    "FNMR",
                    *MEASURE[1:],
                ),
                rows=tuple(
                    (
                        one.name,
                        *(f"{n:,}" for n in (one.persons, one.genuine, one.impostors)),
                        *cells(one.fmr),
                        *cells(one.fnmr),
                    )
                    for one in everybody
                ),
            ),
            Table(
                title="Times the whole",
                header=("group", "FMR", *MEASURE[1:], "FNMR", *MEASURE[1:]),
                rows=tuple(
                    (one.name, *cells(one.fmr_ratio), *cells(one.fnmr_ratio))
                    for one in report.groups
                ),
            ),
            Table(
                title="Worst against best",
                header=("rate", "worst", "best", "times", *MEASURE[1:]),
                rows=(
                    ("FMR", *_differential_cells(report.fmr_differential)),
                    ("FNMR", *_differential_cells(report.fnmr_differential)),
                ),
            ),
        ),
        drawings=(
            Drawing(
                name="groups",
                title="Error rates by group",
                x="group",
                ticks=tuple(one.name for one in report.groups),
                y="rate",
                lines=(
                    _group_line("FMR", places, [one.fmr for one in report.groups]),
                    _group_line("FNMR", places, [one.fnmr for one in report.groups]),
                ),
                y_logarithmic=True,
            ),
        ),
        curves=_group_table(everybody),
    )


def discard_page(report: DiscardReport) -> Page:
    """FNMR by share of faces left out."""
    shares = report.shares
    told = (
        f"FNMR at the threshold {report.threshold:.4f}, at which all faces together have FMR"
        f" {report.fmr:g}. {report.without_quality:,} faces have no quality."
    )
    return Page(
        title="Errors against discard",
        notes=(told,),
        tables=(
            Table(
                title="The worst left out",
                header=(
                    "left out",
                    "quality from",
                    "faces",
                    "genuine",
                    "FNMR",
                    *MEASURE[1:],
                    "change",
                    *MEASURE[1:],
                ),
                rows=tuple(
                    (
                        f"{one.share:.0%}",
                        f"{one.quality_min:.3f}",
                        f"{one.faces:,}",
                        f"{one.genuine:,}",
                        *cells(one.fnmr),
                        *cells(one.change),
                    )
                    for one in shares
                ),
            ),
        ),
        drawings=(
            Drawing(
                name="discard",
                title="FNMR by share left out",
                x="share of faces left out, by quality",
                y=f"FNMR at the threshold of FMR {report.fmr:g}",
                lines=(
                    _group_line(
                        "by quality",
                        np.array([one.share for one in shares]),
                        [one.fnmr for one in shares],
                    ),
                ),
            ),
        ),
        curves=pa.table(
            {
                "share": [one.share for one in shares],
                "quality_min": [one.quality_min for one in shares],
                "faces": [one.faces for one in shares],
                "genuine": [one.genuine for one in shares],
                "fnmr": [one.fnmr.value for one in shares],
                "fnmr_low": [one.fnmr.low for one in shares],
                "fnmr_high": [one.fnmr.high for one in shares],
            }
        ),
    )


def clustering_page(report: ClusteringReport) -> Page:
    """How well a grouping agrees with who faces are."""
    told = (
        f"{report.faces:,} faces of {report.persons:,} persons lie in {report.clusters:,} clusters,"
        f" and {report.alone:,} are on their own. {report.mixed:,} clusters hold more than one"
        f" person, {report.split:,} persons lie in more than one cluster."
    )
    few = f"Pairwise figures count {report.faces_of_pairs:,} faces" + (
        "." if report.faces_max is None else f": at most {report.faces_max} of a person."
    )
    names = tuple(name.replace("_", " ") for name in report.figures)
    known = [one for one in report.figures.values() if one is not None]
    seen = tuple(name for name, one in report.figures.items() if one is not None)
    line = _group_line("agreement", np.arange(len(known), dtype=np.float64), known)
    return Page(
        title="Clustering",
        notes=(told, few),
        tables=(
            Table(
                title="Agreement with the persons known",
                header=("figure", *MEASURE),
                rows=tuple(
                    (name, *cells(one))
                    for name, one in zip(names, report.figures.values(), strict=True)
                ),
            ),
        ),
        drawings=(
            Drawing(
                name="agreement",
                title="Agreement with the persons known",
                x="figure",
                ticks=tuple(name.replace("_", "\n") for name in seen),
                y="1: the same",
                lines=(line,),
            ),
        ),
        curves=pa.table({"figure": seen, "value": line.y, "low": line.low, "high": line.high}),
    )


def captions_page(
    report: CaptionsReport | None, judged: SentencesReport | None, skews: Sequence[SkewReport]
) -> Page:
    """How well captions and sentences find faces, and how evenly."""
    notes, tables, drawings = [], [], []
    curves = pa.table({"asked": pa.array([], pa.string())})
    if report is not None:
        notes.append(
            f"{report.captions:,} captions of {report.faces:,} faces of {report.persons:,} persons."
            " What ties with the right answer counts as before it."
        )
        both = (("text to face", report.text_to_face), ("face to text", report.face_to_text))
        tables.append(
            Table(
                title="Captions and faces",
                header=("asked", "queries", "among", "figure", *MEASURE),
                rows=tuple(row for name, one in both for row in _direction_rows(name, one)),
            )
        )
        drawings.append(
            Drawing(
                name="recall",
                title="Found among the k best",
                x="k",
                y="share of queries",
                lines=tuple(
                    _group_line(
                        name, np.array([*one.recall_at], np.float64), [*one.recall_at.values()]
                    )
                    for name, one in both
                ),
            )
        )
        curves = pa.concat_tables([_recall_table(name, one) for name, one in both])
    if judged is not None:
        notes += [f"Left out: {why}" for why in judged.refused]
        tables.append(_sentences_table(judged))
    if skews:
        curves = pa.concat_tables(map(_skew_curve, skews))
    for skew in skews:
        notes += [f"Left out: {why}" for why in skew.refused]
        tables.append(_skew_table(skew))
        drawings.append(_skew_drawing(skew, number=len(drawings)))
    return Page(
        title="Words and faces",
        notes=tuple(dict.fromkeys(notes)),
        tables=tuple(tables),
        drawings=tuple(drawings),
        curves=curves,
    )


def cells(measure: Measure | None) -> tuple[str, str, str]:
    """A figure and its interval as text; a dash where it was not measured."""
    if measure is None:
        return "-", "-", "-"
    return _cell(measure.value), _cell(measure.low), _cell(measure.high)


def _cell(number: float | None) -> str:
    """Five digits behind the point, or three that count where it is small.

    >>> _cell(0.99846), _cell(0.000012345), _cell(None)
    ('0.99846', '1.23e-05', '-')
    """
    if number is None:
        return "-"
    return f"{number:.2e}" if 0 < abs(number) < 1e-3 else f"{number:.5f}"  # noqa: PLR2004


def _direction_rows(name: str, one: Direction) -> Iterator[tuple[str, ...]]:
    asked = (name, f"{one.queries:,}", f"{one.gallery:,}")
    for rank, share in one.recall_at.items():
        yield *asked, f"R@{rank}", *cells(share)
    yield *asked, "median rank", *cells(one.median_rank)
    yield *asked, "mAP", *cells(one.mean_average_precision)


def _recall_table(name: str, one: Direction) -> pa.Table:
    measures = list(one.recall_at.values())
    return pa.table(
        {
            "asked": [name] * len(measures),
            "rank": list(one.recall_at),
            "recall": [measure.value for measure in measures],
            "recall_low": pa.array([measure.low for measure in measures], pa.float64()),
            "recall_high": pa.array([measure.high for measure in measures], pa.float64()),
        }
    )


def _sentences_table(judged: SentencesReport) -> Table:
    at = f"P@{judged.at}"
    means = (*cells(judged.precision), *cells(judged.mean_average_precision))
    return Table(
        title=f"{len(judged.sentences)} sentences over {judged.faces:,} faces",
        header=("sentence", "right", at, *MEASURE[1:], "AP", *MEASURE[1:]),
        rows=(
            ("mean", "", *means),
            ("any order", "", *cells(_fixed(judged.chance)), *cells(None)),
            *(
                (
                    one.sentence,
                    f"{one.relevant:,}",
                    *cells(one.precision),
                    *cells(one.average_precision),
                )
                for one in judged.sentences
            ),
        ),
    )


def _fixed(value: float) -> Measure:
    return Measure(value=value, low=None, high=None)


def _skew_table(skew: SkewReport) -> Table:
    contrast = skew.contrast
    return Table(
        title=f"The {skew.count} best of {skew.faces:,} faces for: {skew.sentence}",
        header=(
            *("group", "persons", "faces", "found"),
            *("share", *MEASURE[1:], "of all", *MEASURE[1:], "times", *MEASURE[1:]),
        ),
        rows=(
            *(
                (
                    one.name,
                    *(f"{number:,}" for number in (one.persons, one.faces, one.found)),
                    *cells(one.share),
                    *cells(one.gallery_share),
                    *cells(one.ratio),
                )
                for one in skew.groups
            ),
            *(
                ()
                if contrast is None
                else (
                    (
                        f"{contrast.most} against {contrast.least}",
                        *("",) * 9,
                        *cells(contrast.ratio),
                    ),
                )
            ),
        ),
    )


def _skew_curve(skew: SkewReport) -> pa.Table:
    return pa.table(
        {
            "sentence": [skew.sentence] * len(skew.groups),
            "group": [one.name for one in skew.groups],
            "ratio": [one.ratio.value for one in skew.groups],
            "ratio_low": pa.array([one.ratio.low for one in skew.groups], pa.float64()),
            "ratio_high": pa.array([one.ratio.high for one in skew.groups], pa.float64()),
        }
    )


def _skew_drawing(skew: SkewReport, *, number: int) -> Drawing:
    places = np.arange(len(skew.groups), dtype=np.float64)
    return Drawing(
        name=f"skew_{number}",
        title=skew.sentence,
        x="group",
        ticks=tuple(one.name for one in skew.groups),
        y=f"share of the {skew.count} best over share of all",
        lines=(_group_line("times", places, [one.ratio for one in skew.groups]),),
    )


def _listed_table(listed: ListedReport) -> Table:
    error = "" if listed.accuracy_error is None else f" (+- {listed.accuracy_error:.5f})"
    return Table(
        title=f"{listed.pairs:,} listed pairs in {len(listed.folds)} folds",
        header=("figure", *MEASURE),
        rows=(
            (f"accuracy{error}", *cells(listed.accuracy)),
            ("AUC", *cells(listed.auc)),
            *((f"TAR at FMR {fmr:g}", *cells(tar)) for fmr, tar in listed.tar_at.items()),
        ),
    )


def _over_fmr(name: str, title: str, y: str, line: Line) -> Drawing:
    return Drawing(
        name=name,
        title=title,
        x="FMR",
        y=y,
        lines=(line,),
        x_logarithmic=True,
        y_logarithmic=y == "FNMR",
    )


def _seen(rates: Doubles) -> Doubles:
    """Rates for a logarithmic axis: none where no error was seen."""
    return np.where(rates > 0, rates, np.nan)


def _name(gallery: GalleryReport) -> str:
    return f"{gallery.persons:,}, {gallery.scoring}"


def _fnir_rows(gallery: GalleryReport) -> list[tuple[str, ...]]:
    return [
        (
            f"{gallery.persons:,}",
            gallery.scoring,
            f"{one.fpir:g}",
            *cells(one.fnir),
            _cell(one.spread),
            f"{one.threshold:.4f}",
        )
        for one in gallery.at_fpir
    ]


def _open_set_curve(gallery: GalleryReport) -> pa.Table:
    count = len(FPIR_THRESHOLDS)
    return pa.table(
        {
            "gallery": np.full(count, gallery.persons),
            "scoring": [str(gallery.scoring)] * count,
            "threshold": FPIR_THRESHOLDS,
            "fpir": gallery.fpir,
            "fnir": gallery.fnir,
        }
    )


def _group_line(name: str, x: Doubles, measures: list[Measure]) -> Line:
    def numbers(found: list[float | None]) -> Doubles:
        return np.array([np.nan if one is None else one for one in found])

    return Line(
        name=name,
        x=x,
        y=numbers([one.value for one in measures]),
        low=numbers([one.low for one in measures]),
        high=numbers([one.high for one in measures]),
    )


def _group_table(groups: tuple[GroupReport, ...]) -> pa.Table:
    columns: dict[str, list[str | int | float | None]] = {
        "group": [one.name for one in groups],
        "persons": [one.persons for one in groups],
        "genuine": [one.genuine for one in groups],
        "impostors": [one.impostors for one in groups],
        "false_matches": [one.false_matches for one in groups],
        "false_non_matches": [one.false_non_matches for one in groups],
    }
    for name in ("fmr", "fnmr"):
        measures: list[Measure] = [getattr(one, name) for one in groups]
        columns[name] = [one.value for one in measures]
        columns[f"{name}_low"] = [one.low for one in measures]
        columns[f"{name}_high"] = [one.high for one in measures]
    return pa.table(columns)


def _differential_cells(found: Differential | None) -> tuple[str, ...]:
    if found is None:
        return "-", "-", *cells(None)
    return found.worst, found.best, *cells(found.ratio)
