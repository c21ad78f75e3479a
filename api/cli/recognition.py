"""`facedex verify`, `identify` and `enroll`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import Session, emit, printable, table, with_collection, with_json, with_where

if TYPE_CHECKING:
    from facedex.recognition import Enrolment, Identified, Probe, Recognition
    from retrieval.people.decision import Verification

NO = 1  # exit status of a question that was answered "no"
RATE = click.FloatRange(0, 1, min_open=True, max_open=True)
Picture = click.Path(path_type=Path)


@click.command(
    epilog="""\b
Examples:
  facedex verify ann.jpg somebody.jpg
  facedex verify somebody.jpg --person Ann --fmr 1e-6
  facedex verify --face 17 --face 44
  facedex verify --pairs pairs.parquet --out judged.parquet
"""
)
@click.argument("pictures", nargs=-1, type=Picture)
@click.option("--face", "faces", type=int, multiple=True, help="A stored face. Repeatable.")
@click.option("--person", metavar="NAME|#ID", help="A stored person, by its template.")
@click.option("--pairs", type=Picture,
              help="Parquet of many: face_a, face_b, or vector_a, vector_b.")  # fmt: skip
@click.option("--out", type=Picture, help="With --pairs: the same with similarity and same.")
@click.option("--fmr", type=RATE, default=1e-5, show_default=True,
              help="Share of comparisons of strangers that may be called the same.")  # fmt: skip
@with_collection
@with_json
@click.pass_obj
@click.pass_context
def verify_command(
    context: click.Context,
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say whether two faces, or a face and a person, belong together.

    Ends with 0 for yes, with 1 for no, and with 1 where the quality of a face allows neither.
    """
    pictures, faces, person = (options[name] for name in ("pictures", "faces", "person"))
    if options["pairs"] is not None:
        if pictures or faces or person or options["out"] is None:
            raise click.UsageError("--pairs FILE goes with --out FILE, and with nothing else")
        _judge_file(session, "pairs", collection=collection, as_json=as_json, options=options)
        return
    if len(pictures) + len(faces) + (person is not None) != 2:  # noqa: PLR2004
        raise click.UsageError("name two: pictures, --face numbers, or one of them and --person")
    with session.facedex(collection=collection) as facedex:
        recognition = facedex.recognition
        probes = _probes(recognition, pictures, faces)
        if person is None:
            found = recognition.verify(*probes, fmr=options["fmr"])
        else:
            found = recognition.verify_person(probes[0], person, fmr=options["fmr"])
    emit(_verification(found), as_json=as_json, text=_verification_text(found))
    if not found.same:
        context.exit(NO)


@click.command(
    epilog="""\b
Examples:
  facedex identify somebody.jpg
  facedex identify --face 17 --fpir 1e-4 --where "source = 'door'"
  facedex identify --probes made.parquet --out nearest.parquet -k 3
"""
)
@click.argument("picture", required=False, type=Picture)
@click.option("--face", type=int, help="A stored face.")
@click.option("--fpir", type=RATE, default=1e-3, show_default=True,
              help="Share of searches for strangers that may find somebody.")  # fmt: skip
@click.option("--probes", type=Picture, help="Parquet of many: a column vector, perhaps an id.")
@click.option("--out", type=Picture, help="With --probes: the nearest persons of each.")
@click.option("-k", "count", type=click.IntRange(1, 100), default=1, show_default=True,
              help="With --probes: persons told of each.")  # fmt: skip
@with_where()
@with_collection
@with_json
@click.pass_obj
def identify_command(
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say who a face may be: every person that is alike enough, or that nobody is."""
    picture, face = options["picture"], options["face"]
    if options["probes"] is not None:
        if picture or face is not None or options["where"] or options["out"] is None:
            raise click.UsageError("--probes FILE goes with --out FILE, and with no other probe")
        _judge_file(session, "probes", collection=collection, as_json=as_json, options=options)
        return
    if (picture is None) == (face is None):
        raise click.UsageError("name one probe: a picture, or --face")
    with session.facedex(collection=collection) as facedex:
        recognition = facedex.recognition
        [probe] = _probes(
            recognition,
            () if picture is None else (picture,),
            () if face is None else (face,),
        )
        found = recognition.identify(probe, fpir=options["fpir"], where=options["where"])
    emit(_identification(found), as_json=as_json, text=_identification_text(found))


@click.command(
    epilog="""\b
Example:
  facedex enroll "Ann Smith" ann-1.jpg ann-2.jpg
"""
)
@click.argument("name")
@click.argument("pictures", nargs=-1, required=True, type=Picture)
@click.option("--fpir", type=RATE, default=1e-3, show_default=True,
              help="How alike another person must be for a conflict.")  # fmt: skip
@with_collection
@with_json
@click.pass_obj
@click.pass_context
def enroll_command(
    context: click.Context,
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Give the largest central face of each picture to a person, made where it is new.

    Pictures of poor quality, and those that look like another person, are refused with the reason.
    """
    with session.facedex(collection=collection) as facedex:
        done = facedex.recognition.enroll(
            options["name"], options["pictures"], fpir=options["fpir"]
        )
    emit(_enrolment(done), as_json=as_json, text=_enrolment_text(done))
    if done.person is None:
        context.exit(NO)


def _judge_file(
    session: Session,
    kind: str,
    *,
    collection: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from api.cli.progress import row_bar
    from facedex.batches import identify_probes, verify_pairs

    with session.facedex(collection=collection) as facedex, row_bar() as progress:
        recognition, out = facedex.recognition, options["out"]
        if kind == "pairs":
            report = verify_pairs(
                recognition, options["pairs"], out, fmr=options["fmr"], progress=progress
            )
        else:
            report = identify_probes(
                recognition,
                options["probes"],
                out,
                fpir=options["fpir"],
                count=options["count"],
                progress=progress,
            )
    similarity = float(report.threshold.similarity)
    emit(
        {
            "rows": report.rows,
            "reached": report.reached,
            "unusable": report.unusable,
            "threshold": similarity,
            "out": out,
        },
        as_json=as_json,
        text=f"{report.reached:,} of {report.rows:,} {kind} reach {similarity:.3f}, "
        f"{report.unusable:,} could not be judged: {printable(out)}",
    )


def _probes(
    recognition: "Recognition", pictures: tuple[Path, ...], faces: tuple[int, ...]
) -> "list[Probe]":
    return [
        *map(recognition.probe_of_picture, pictures),
        *map(recognition.probe_of_face, faces),
    ]


def _verification(found: "Verification") -> dict[str, Any]:
    expected = found.threshold.expected
    return {
        "similarity": float(found.similarity),
        "same": found.same,
        "verdict": str(found.verdict),
        "threshold": float(found.threshold.similarity),
        "fmr": expected.value,
        "fmr_low": expected.low,
        "fmr_high": expected.high,
        "quality": list(found.quality),
    }


def _verification_text(found: "Verification") -> str:
    said = {True: "the same person", False: "not the same person"}
    verdict = "insufficient quality" if found.same is None else said[found.same]
    return (
        f"{verdict}: similarity {found.similarity:.3f}, threshold "
        f"{found.threshold.similarity:.3f} at an FMR of {_rate(found.threshold)}"
    )


def _identification(found: "Identified") -> dict[str, Any]:
    decided = found.identification
    expected = decided.threshold.expected
    return {
        "candidates": [
            {
                "person": one.candidate.person,
                "similarity": float(one.candidate.similarity),
                "name": one.name,
            }
            for one in found.named
        ],
        "verdict": str(decided.verdict),
        "threshold": float(decided.threshold.similarity),
        "fpir": expected.value,
        "fpir_low": expected.low,
        "fpir_high": expected.high,
        "quality": decided.quality,
        "gallery": decided.gallery,
    }


def _identification_text(found: "Identified") -> str:
    decided = found.identification
    told = (
        f"threshold {decided.threshold.similarity:.3f} among {decided.gallery:,} persons at an "
        f"FPIR of {_rate(decided.threshold)}"
    )
    if not found.named:
        return f"{str(decided.verdict).replace('_', ' ')}: {told}"
    rows = [
        [f"{one.candidate.similarity:.4f}", f"#{one.candidate.person}", one.name or ""]
        for one in found.named
    ]
    return f"{table(rows, header=['similarity', 'person', 'name'])}\n{told}"


def _enrolment(done: "Enrolment") -> dict[str, Any]:
    return {
        "person": done.person,
        "faces": list(done.faces),
        "refused": [{"path": one.path, "reason": one.reason} for one in done.refused],
        "token": done.token,
    }


def _enrolment_text(done: "Enrolment") -> str:
    refused = [f"refused {printable(one.path)}: {one.reason}" for one in done.refused]
    told = (
        "nothing was enrolled"
        if done.person is None
        else f"{len(done.faces)} faces of person #{done.person}"
    )
    return "\n".join([*refused, told])


def _rate(threshold: Any) -> str:
    expected = threshold.expected
    if expected.extrapolated:
        return f"{expected.value:.2g} (extrapolated)"
    return f"{expected.value:.2g} ({expected.low:.2g} to {expected.high:.2g})"
