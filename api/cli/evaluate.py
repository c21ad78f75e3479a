"""`facedex evaluate`: how often recognition errs, and how well words find faces."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.output import (
    Command,
    Session,
    emit,
    note,
    printable,
    table,
    with_collection,
    with_json,
    with_where,
)
from api.cli.separability import separability_command

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from retrieval.evaluation.captions import (
        CaptionsReport,
        Direction,
        SentencesReport,
        SkewReport,
    )
    from retrieval.evaluation.clustering import Assignment, ClusteringReport
    from retrieval.evaluation.discard import DiscardReport
    from retrieval.evaluation.groups import Differential, GroupReport, GroupsReport
    from retrieval.evaluation.identification import GalleryReport, IdentificationReport
    from retrieval.evaluation.listed import ListedReport
    from retrieval.evaluation.report import Page
    from retrieval.evaluation.resampling import Measure
    from retrieval.evaluation.verification import VerificationReport

Figures = dict[str, Any]
FPIRS_DEFAULT: Final = (0.1, 0.01, 0.001)
METHODS: Final = ("templates", "components", "hdbscan", "leiden")
SHARE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)


def with_options(command: Command) -> Command:
    """Add what every evaluation takes: collection, filter, folder, JSON."""
    out = click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for curves (Parquet), figures (JSON), plots (PNG) and one HTML page.",
    )
    return with_collection(with_where()(out(with_json(command))))


@click.group(
    epilog="""\b
Examples:
  facedex evaluate verification --images lfw.tar.gz --pairs pairs.txt -c lfw
  facedex evaluate identification --gallery 100 --gallery 1000 --out report/
  facedex evaluate bias --by gender --fmr 0.0001
  facedex evaluate captions --groups gender --sentence "a banker" --sentence "a nurse"
  facedex evaluate separability --fmr 1e-6 --out separability/
  facedex evaluate clustering --out report/
  facedex evaluate clustering --clusters groups/clusters.parquet --json
"""
)
def evaluate_command() -> None:
    """Measure error rates on faces whose person is known, and how well words find faces.

    Each figure has a 95 % interval from draws of persons; a rate that the data do not carry (fewer
    than 30 errors) is not given. docs/guides/evaluation.md explains every word.
    """


evaluate_command.add_command(separability_command, "separability")


@evaluate_command.command("verification")
@with_options
@click.option(
    "--images",
    metavar="PATH",
    help="First ingest these: a folder or tar with a folder for each person.",
)
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also score the pairs of this list (LFW's pairs.txt).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Take the thresholds of verify, identify and enroll from these faces from now on.",
)
@click.pass_obj
def verification(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """All pairs of faces: FMR, FNMR, TAR at FMR, EER, AUC; and a list of pairs in folds.

    With --images one command leads from pictures to figures; pictures that the collection knows
    are not read again.
    """
    from api.cli.progress import row_bar

    _before_work(out)
    with session.facedex(collection=collection) as facedex:
        if options["images"]:
            _ingest(facedex, options["images"])
        with row_bar("step") as progress:
            found = facedex.evaluation.verification(
                where=where, pairs=options["pairs"], seed=options["seed"], progress=progress
            )
        calibration = _calibration(facedex, where) if options["calibrate"] else {}
    from retrieval.evaluation.pages import verification_page

    figures = {**_listed(found.listed), **_verification(found.all_pairs)}
    if calibration:
        figures["names_taken_for_one"] = calibration["joined"]
    _show(verification_page(found.all_pairs, found.listed), figures, out=out, as_json=as_json)
    if calibration and out is not None:
        (out / "calibration.json").write_text(json.dumps(calibration["curve"]), encoding="utf-8")


def _calibration(facedex: "Facedex", where: str | None) -> Figures:
    from api.cli.progress import row_bar
    from retrieval.people.calibration import to_json

    with row_bar("step") as progress:
        found = facedex.evaluation.calibrate(where=where, progress=progress)
    return {"joined": len(found.joined), "curve": to_json(found.calibration)}


@evaluate_command.command("identification")
@with_options
@click.option(
    "--gallery",
    "galleries",
    type=click.IntRange(min=1),
    multiple=True,
    default=(100, 500),
    show_default=True,
    help="Persons enrolled; everybody is always tried too. Repeatable.",
)
@click.option(
    "--fpir",
    "fpirs",
    type=SHARE,
    multiple=True,
    default=FPIRS_DEFAULT,
    show_default=True,
    help="Share of strangers who may be taken for somebody. Repeatable.",
)
@click.option("--splits", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--quality-min", type=click.FloatRange(0, 1), default=0.0, help="Refuse faces below it."
)
@click.pass_obj
def identification(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Open set: FNIR at FPIR and CMC by size of gallery, templates against best-of-n.

    Persons with two faces or more are enrolled with all but one and asked for with that one; the
    others are strangers. A refused probe is a miss.
    """
    from api.cli.progress import row_bar

    _before_work(out)
    with session.facedex(collection=collection) as facedex, row_bar("split") as progress:
        report = facedex.evaluation.identification(where=where, progress=progress, **options)
    from retrieval.evaluation.pages import identification_page

    _show(identification_page(report), _identification(report), out=out, as_json=as_json)


@evaluate_command.command("bias")
@with_options
@click.option("--by", metavar="FIELD", required=True, help="Text, integer or boolean.")
@click.option("--fmr", type=SHARE, default=1e-3, show_default=True, help="Of the whole.")
@click.option("--threshold", type=click.FloatRange(-1, 1), help="A cosine, instead of --fmr.")
@click.option("--persons-min", type=click.IntRange(min=2), default=30, show_default=True)
@click.option(
    "--pairs-min",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Of each kind; smaller groups are left out, with the reason.",
)
@click.pass_obj
def bias(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """FMR and FNMR of each group at one threshold, and how far they lie apart."""
    from api.cli.progress import row_bar

    _before_work(out)
    with session.facedex(collection=collection) as facedex, row_bar("group") as progress:
        report = facedex.evaluation.bias(where=where, progress=progress, **options)
    for why in report.refused:
        note(f"left out: {why}")
    from retrieval.evaluation.pages import groups_page

    _show(groups_page(report), _groups(report), out=out, as_json=as_json)


@evaluate_command.command("quality")
@with_options
@click.option("--fmr", type=SHARE, default=1e-4, show_default=True, help="Of the whole.")
@click.pass_obj
def quality(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    fmr: float,
) -> None:
    """FNMR as the worst faces by quality are left out, 0 to 30 %."""
    from api.cli.progress import row_bar

    _before_work(out)
    with session.facedex(collection=collection) as facedex, row_bar("step") as progress:
        report = facedex.evaluation.quality(where=where, fmr=fmr, progress=progress)
    from retrieval.evaluation.pages import discard_page

    _show(discard_page(report), _discard(report), out=out, as_json=as_json)


@evaluate_command.command("captions")
@with_options
@click.option(
    "--sentences",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Also judge these: JSON, [{"sentence": ..., "where": ...}, ...].',
)
@click.option("--groups", metavar="FIELD", help="Instead: shares of the groups of this field.")
@click.option("--sentence", "asked", multiple=True, help="Of --groups. Repeatable.")
@click.option("-k", "--count", type=click.IntRange(min=1), default=100, show_default=True,
              help="Best faces among which groups are counted.")  # fmt: skip
@click.option("--persons-min", type=click.IntRange(min=2), default=30, show_default=True,
              help="Of a group; smaller ones are left out, with the reason.")  # fmt: skip
@click.pass_obj
def captions(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Captions against faces, both ways; free sentences; how evenly a sentence finds groups.

    R@1, 5 and 10, median rank and mAP; precision of free sentences. With --groups, the share of
    each group among the best for each --sentence over its share of all: any sentence may be asked,
    for no face is shown.
    """
    if bool(options["groups"]) != bool(options["asked"]) or (options["groups"] and options["file"]):
        raise click.UsageError("--groups FIELD goes with --sentence, and without --sentences")
    _before_work(out)
    with session.facedex(collection=collection) as facedex:
        if options["groups"]:
            skews = facedex.evaluation.skew(
                options["asked"],
                options["groups"],
                where=where,
                count=options["count"],
                persons_min=options["persons_min"],
            )
            ranks = judged = None
        else:
            skews = []
            ranks, judged = _ranks(facedex, where=where, file=options["file"])
    for why in dict.fromkeys(why for skew in skews for why in skew.refused):
        note(f"left out: {why}")
    from retrieval.evaluation.pages import captions_page

    figures = {**_captions(ranks), **_judged(judged), **_skews(skews)}
    _show(captions_page(ranks, judged, skews), figures, out=out, as_json=as_json)


@evaluate_command.command("clustering")
@with_options
@click.option(
    "--clusters",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parquet with face, and cluster or person, as of `facedex cluster --out`.",
)
@click.option("--method", type=click.Choice(METHODS), default="templates", show_default=True,
              help="Of `facedex cluster`, without --clusters.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(-1, 1), help="For another --method.")
@click.option("--by", metavar="FIELD", help="Says who a face is, instead of its person.")
@click.option(
    "--faces-max",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Faces of a person that pairwise figures count; 0: all.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@click.pass_obj
def clustering(
    session: Session,
    /,
    collection: str | None,
    where: str | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Groups of faces against the persons known: pairwise and BCubed F, ARI, NMI.

    Without --clusters, what `facedex cluster` would find if nobody had said who is who; nothing is
    stored. A face that --clusters does not name is on its own. Faces of unknown person are grouped
    along, and not judged.
    """
    _before_work(out)
    from retrieval.evaluation.pages import clustering_page

    with session.facedex(collection=collection) as facedex:
        assignment = _assignment(facedex, where=where, **options)
        report = facedex.evaluation.clustering(
            lambda faces: assignment.of(faces.faces),
            where=where,
            by=options["by"],
            faces_max=options["faces_max"] or None,
            seed=options["seed"],
        )
    _show(clustering_page(report), _clustering(report), out=out, as_json=as_json)


def _assignment(
    facedex: "Facedex", *, where: str | None, clusters: Path | None, **options: Any
) -> "Assignment":
    """What a file says, or what is found now."""
    if clusters is not None:
        from retrieval.evaluation.clustering import read_assignment

        return read_assignment(clusters)
    from api.cli.progress import stage_bar
    from retrieval.clusters.methods import Method

    with stage_bar() as progress:
        return facedex.clustering.unaided(
            where=where,
            method=Method(options["method"]),
            threshold=options["threshold"],
            progress=progress,
        )


def _ranks(
    facedex: "Facedex", *, where: str | None, file: Path | None
) -> "tuple[CaptionsReport | None, SentencesReport | None]":
    """Captions against faces, and the sentences of a file; those alone where no face has any."""
    from api.cli.progress import row_bar
    from retrieval.errors import UsageError

    judged = None if file is None else facedex.evaluation.sentences(file, where=where)
    try:
        with row_bar("block") as progress:
            return facedex.evaluation.captions(where=where, progress=progress), judged
    except UsageError as error:
        if judged is None:
            raise
        note(str(error))
        return None, judged


def _before_work(out: Path | None) -> None:
    if out is not None:
        from retrieval.evaluation.report import require_drawing

        require_drawing()


def _ingest(facedex: "Facedex", images: str) -> None:
    from api.cli.progress import ingest_bar
    from indexer.jobs import IngestRequest

    request = IngestRequest(paths=[images], person_from_folder=True)
    note(facedex.licence_notice())
    with ingest_bar(facedex.listing(request).count()) as progress:
        report = facedex.run_ingest(request, progress=progress)
    note(
        f"{report.images} new images, {report.known} known, {len(report.refused)} refused: a pair"
        " of a refused one counts as wrong"
    )


def _show(page: "Page", figures: Figures, *, out: Path | None, as_json: bool) -> None:
    if out is not None:
        from retrieval.evaluation.report import write

        for path in write(page, out, figures=figures):
            note(f"wrote {printable(path)}")
    tables = [f"{one.title}\n{table(one.rows, header=one.header)}" for one in page.tables]
    emit(figures, as_json=as_json, text="\n\n".join([*page.notes, *tables]))


def _measure(name: str, measure: "Measure | None") -> Figures:
    """A figure with its interval beside it; None throughout where it was not measured."""
    if measure is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high}


def _verification(report: "VerificationReport") -> Figures:
    from retrieval.evaluation.curves import key_of

    figures: Figures = {
        "persons": report.persons,
        "faces": report.faces,
        "genuine_pairs": report.genuine,
        "impostor_pairs": report.impostors,
        **_measure("auc", report.auc),
        **_measure("eer", report.eer),
    }
    for one in report.at_fmr:
        figures |= _measure(f"tar_at_fmr_{key_of(one.fmr)}", one.tar)
        figures[f"threshold_at_fmr_{key_of(one.fmr)}"] = one.threshold
    for fmr in report.not_carried:
        figures |= _measure(f"tar_at_fmr_{key_of(fmr)}", None)
        figures[f"threshold_at_fmr_{key_of(fmr)}"] = None
    return figures


def _listed(report: "ListedReport | None") -> Figures:
    """The figures of the list; what all pairs have too is called `pairs_...`."""
    if report is None:
        return {}
    from retrieval.evaluation.curves import key_of

    figures: Figures = {
        **_measure("accuracy", report.accuracy),
        "accuracy_error": report.accuracy_error,
        "pairs": report.pairs,
        "pairs_unscored": report.unscored,
        "folds": report.folds,
        **_measure("pairs_auc", report.auc),
    }
    for fmr, tar in report.tar_at.items():
        figures |= _measure(f"pairs_tar_at_fmr_{key_of(fmr)}", tar)
    return figures


def _identification(report: "IdentificationReport") -> Figures:
    """The figures of everybody enrolled as templates, and all of them under `galleries`."""
    from retrieval.evaluation.identification import Scoring

    largest = max(one.persons for one in report.galleries)
    main = next(
        one for one in report.galleries if (one.persons, one.scoring) == (largest, Scoring.TEMPLATE)
    )
    return {
        "mated": report.mated,
        "strangers": report.strangers,
        "refused": report.refused,
        "splits": report.splits,
        **_gallery(main, report.not_carried),
        "galleries": [_gallery(one, report.not_carried) for one in report.galleries],
        "template_against_best": [
            {
                "gallery": one.persons,
                "fpir": one.fpir,
                **_measure("fnir_change", one.fnir_change),
            }
            for one in report.gains
        ],
    }


def _gallery(report: "GalleryReport", not_carried: tuple[float, ...]) -> Figures:
    from retrieval.evaluation.curves import key_of

    figures: Figures = {"gallery": report.persons, "scoring": str(report.scoring)}
    for one in report.at_fpir:
        key = key_of(one.fpir)
        figures |= _measure(f"fnir_at_fpir_{key}", one.fnir)
        figures[f"fnir_at_fpir_{key}_spread"] = one.spread
        figures[f"fnir_at_fpir_{key}_splits"] = one.splits
        figures[f"threshold_at_fpir_{key}"] = one.threshold
    for fpir in not_carried:
        figures |= _measure(f"fnir_at_fpir_{key_of(fpir)}", None)
    for rank, share in report.ranks:
        figures |= _measure(f"rank_{rank}", share)
    return figures


def _groups(report: "GroupsReport") -> Figures:
    return {
        "threshold": report.threshold,
        **_group(report.whole),
        **_differential("fmr", report.fmr_differential),
        **_differential("fnmr", report.fnmr_differential),
        "groups": [_group(one) for one in report.groups],
        "refused": report.refused,
        "without_group": report.without_group,
    }


def _group(report: "GroupReport") -> Figures:
    return {
        "group": report.name,
        "persons": report.persons,
        "genuine_pairs": report.genuine,
        "impostor_pairs": report.impostors,
        "false_matches": report.false_matches,
        "false_non_matches": report.false_non_matches,
        **_measure("fmr", report.fmr),
        **_measure("fnmr", report.fnmr),
        **_measure("fmr_to_whole", report.fmr_ratio),
        **_measure("fnmr_to_whole", report.fnmr_ratio),
    }


def _differential(name: str, found: "Differential | None") -> Figures:
    return {
        f"{name}_worst": None if found is None else found.worst,
        f"{name}_best": None if found is None else found.best,
        **_measure(f"{name}_ratio", None if found is None else found.ratio),
    }


def _captions(report: "CaptionsReport | None") -> Figures:
    """The figures of sentences that ask for faces, and the way back as `face_to_text_...`."""
    if report is None:
        return {}
    return {
        "faces": report.faces,
        "persons": report.persons,
        "captions": report.captions,
        **_direction("", report.text_to_face),
        **_direction("face_to_text_", report.face_to_text),
    }


def _direction(before: str, one: "Direction") -> Figures:
    figures: Figures = {f"{before}queries": one.queries, f"{before}gallery": one.gallery}
    for rank, share in one.recall_at.items():
        figures |= _measure(f"{before}recall_at_{rank}", share)
    figures |= _measure(f"{before}median_rank", one.median_rank)
    return figures | _measure(f"{before}map", one.mean_average_precision)


def _clustering(report: "ClusteringReport") -> Figures:
    figures: Figures = {
        "faces": report.faces,
        "persons": report.persons,
        "clusters": report.clusters,
        "alone": report.alone,
        "mixed_clusters": report.mixed,
        "split_persons": report.split,
        "faces_max": report.faces_max,
        "faces_of_pairs": report.faces_of_pairs,
    }
    for name, measure in report.figures.items():
        figures |= _measure(name, measure)
    return figures


def _judged(report: "SentencesReport | None") -> Figures:
    if report is None:
        return {}
    at = f"precision_at_{report.at}"
    return {
        **_measure(at, report.precision),
        **_measure("sentences_map", report.mean_average_precision),
        f"{at}_of_any_order": report.chance,
        "sentences": [
            {
                "sentence": one.sentence,
                "relevant": one.relevant,
                **_measure(at, one.precision),
                **_measure("average_precision", one.average_precision),
            }
            for one in report.sentences
        ],
        "sentences_refused": report.refused,
    }


def _skews(reports: "list[SkewReport]") -> Figures:
    if not reports:
        return {}
    return {"skew": [_skew(one) for one in reports]}


def _skew(report: "SkewReport") -> Figures:
    contrast = report.contrast
    return {
        "sentence": report.sentence,
        "count": report.count,
        "faces": report.faces,
        "without_group": report.without_group,
        "groups": [
            {
                "group": one.name,
                "persons": one.persons,
                "faces": one.faces,
                "found": one.found,
                **_measure("share", one.share),
                **_measure("gallery_share", one.gallery_share),
                **_measure("ratio", one.ratio),
            }
            for one in report.groups
        ],
        "refused": report.refused,
        "most": None if contrast is None else contrast.most,
        "least": None if contrast is None else contrast.least,
        **_measure("most_to_least", None if contrast is None else contrast.ratio),
    }


def _discard(report: "DiscardReport") -> Figures:
    figures: Figures = {
        "fmr": report.fmr,
        "threshold": report.threshold,
        "without_quality": report.without_quality,
    }
    for one in report.shares:
        key = f"{one.share * 100:g}"
        figures |= _measure(f"fnmr_without_worst_{key}", one.fnmr)
        figures |= _measure(f"fnmr_change_without_worst_{key}", one.change)
    return figures
