"""`facedex search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.faces import record_cells, record_values
from api.cli.output import Session, emit, printable, table, with_collection, with_json, with_where

if TYPE_CHECKING:
    from facedex.handle import Facedex
    from facedex.searching import Found, FoundCaptions, Hit
    from retrieval.values import Box, UnitRows

PROBES = ("image", "face", "vector", "queries")  # of whom an identity is meant
WORDS = ("text", "not_text", "like", "words")
Picture = click.Path(path_type=Path)


class RecallType(click.ParamType[Any]):
    """A share such as 0.95, "certified" or "exact"."""

    name = "recall"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Give the share as a number, or the word."""
        if value in ("exact", "certified"):
            return str(value)
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(f"'{value}' is no share such as 0.95, nor certified, nor exact", param, ctx)
        return share


class RegionType(click.ParamType["Box"]):
    """Pixels of a picture: left, top, right, bottom."""

    name = "L,T,R,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Box":
        """Give the four numbers as a box."""
        from retrieval.values import Box

        try:
            left, top, right, bottom = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not four numbers: left,top,right,bottom", param, ctx)
        if not (left < right and top < bottom):
            self.fail(
                f"'{value}' has its left not left of its right, or is upside down", param, ctx
            )
        return Box(left=left, top=top, right=right, bottom=bottom)


@click.command(
    epilog="""\b
Examples:
  facedex search --image ann.jpg
  facedex search --face 17 --where "captured_at >= '2024-01-01' AND quality >= 0.5" -k 20
  facedex search --vector probe.npy --recall exact --explain
  facedex search --text "a smiling woman with glasses" --not-text "a hat"
  facedex search --image ann.jpg --text smiling --weight 0.3 --where "quality >= 0.5"
  facedex search --image group.jpg --region 520,80,640,230
  facedex search --like ann.jpg --captions
"""
)
@click.option("--image", type=Picture, help="A face of this picture: who is meant.")
@click.option("--face", type=int, help="A stored face.")
@click.option("--vector", type=Picture, help="A .npy file: (d,) or (n, d).")
@click.option("--queries", type=Picture, help="A Parquet file with `vector`.")
@click.option("--text", metavar="SENTENCE", help="What fits.")
@click.option("--not-text", metavar="SENTENCE", help="What does not fit.")
@click.option("--like", type=Picture, help="A picture of somebody who looks like what is meant.")
@click.option(
    "--words", metavar="WORDS", help='Words of a caption, as in web searches ("", or, -).'
)
@click.option("--weight", type=click.FloatRange(0, 1), default=0.5, show_default=True,
              help="Share of text and look against the face.")  # fmt: skip
@click.option("--strict/--soft", default=False,
              help="Words that name attributes become a condition on tags, or rank.")  # fmt: skip
@click.option("--region", type=RegionType(), help="The face of the picture that lies there.")
@click.option("--pick", type=click.IntRange(min=1), metavar="N", help="The N-th largest face.")
@click.option("--captions", is_flag=True, help="Find captions instead of faces.")
@with_collection
@with_where()
@click.option("-k", "count", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--recall", type=RecallType(), default="0.95", show_default=True,
              help="Share of the true neighbours, or certified, or exact.")  # fmt: skip
@click.option("--min-similarity", type=float, metavar="S", help="Leave out hits below it.")
@click.option("--group-by", type=click.Choice(["person", "track"]),
              help="The best face of each; one that has none stands alone.")  # fmt: skip
@click.option("--after", type=int, metavar="TOKEN", help="Wait until this write is visible.")
@click.option("--explain", is_flag=True, help="Show the plan, why, and the time of each step.")
@with_json
@click.pass_obj
def search_command(
    session: Session,
    /,
    collection: str | None,
    as_json: bool,
    explain: bool,
    **options: Any,
) -> None:
    """Find the faces that look like one, fit a description, or both.

    A picture's largest central face is meant unless --region or --pick names another. With a face
    and words, the similarity is the weighted mean of both cosines.
    """
    _check(options)
    asked: dict[str, Any] = {
        name: options[name]
        for name in ("text", "not_text", "where", "count", "recall", "min_similarity", "after",
                     "strict", "group_by")
    }  # fmt: skip
    with session.facedex(collection=collection) as facedex:
        if options["captions"]:
            captions = facedex.search_captions(like=_look(facedex, options), **asked)
            _tell_captions(captions, as_json=as_json, explain=explain)
            return
        found = facedex.search(
            _identities(facedex, options),
            like=None if options["like"] is None else _look(facedex, options),
            words=options["words"],
            weight=options["weight"],
            **asked,
        )
    several = options["queries"] is not None or len(found.hits) != 1
    _tell(found, several=several, as_json=as_json, explain=explain)


def _check(options: dict[str, Any]) -> None:
    """Refuse combinations that mean nothing."""
    probes = [name for name in PROBES if options[name] is not None]
    words = [name for name in WORDS if options[name] is not None]
    if len(probes) > 1 or not probes + words:
        raise click.UsageError(
            "name one probe (--image, --face, --vector or --queries), words (--text, --not-text, "
            "--like, --words), or both"
        )
    pictures = [name for name in ("image", "like") if options[name] is not None]
    chosen = [name for name in ("region", "pick") if options[name] is not None]
    if len(chosen) > 1 or (chosen and len(pictures) != 1):
        raise click.UsageError("--region or --pick names a face of one picture: --image or --like")
    if options["captions"] and (
        options["words"] or not {*probes} <= {"image", "face"} or ({*probes} and "like" in words)
    ):
        raise click.UsageError(
            "captions are found by --text, --not-text and one of --like, --image and --face"
        )


def _meant(options: dict[str, Any]) -> dict[str, Any]:
    """Which face of a picture."""
    return {"region": options["region"], "pick": options["pick"]}


def _identities(facedex: "Facedex", options: dict[str, Any]) -> "UnitRows | None":
    probes = facedex.probes
    if options["image"] is not None:
        return probes.of_picture(options["image"], **_meant(options))
    if options["face"] is not None:
        return probes.of_face(options["face"])
    if options["vector"] is not None:
        return probes.of_array(options["vector"])
    if options["queries"] is not None:
        return probes.of_table(options["queries"])
    return None


def _look(facedex: "Facedex", options: dict[str, Any]) -> "UnitRows | None":
    """A face in the face-text space."""
    picture = options["like"] or options["image"]
    if picture is not None:
        return facedex.probes.look_of_picture(picture, **_meant(options))
    if options["face"] is not None:
        return facedex.probes.look_of_face(options["face"])
    return None


def _tell(found: "Found", *, several: bool, as_json: bool, explain: bool) -> None:
    _warn(found.flagged)
    plan = _plan(found)
    answers = [[_hit_values(hit) for hit in hits] for hits in found.hits]
    values: dict[str, Any] = {"queries": answers} if several else {"hits": answers[0]}
    answer = found.answer
    values |= {
        "tier": None if answer is None else str(answer.tier),
        "survivors": None if answer is None else answer.survivors,
        "rows_scored": 0 if answer is None else answer.rows_scored,
        "plan": plan,
        "where": found.where,
        "flagged": list(found.flagged),
    }
    told = [_plan_text(plan)] if explain else []
    emit(values, as_json=as_json, text="\n\n".join([*map(_hit_table, found.hits), *told]))


def _tell_captions(found: "FoundCaptions", *, as_json: bool, explain: bool) -> None:
    from retrieval.explain import explained, text_of

    _warn(found.flagged)
    plan = explained(found.answer)
    hits = [
        {
            "similarity": float(hit.similarity),
            "caption": hit.caption.id,
            "text": hit.caption.text,
            "face": hit.caption.face,
            "provider": hit.caption.provider,
        }
        for hit in found.hits
    ]
    values = {
        "hits": hits,
        "tier": str(found.answer.tier),
        "survivors": found.answer.survivors,
        "rows_scored": found.answer.rows_scored,
        "plan": plan,
        "where": found.where,
        "flagged": list(found.flagged),
    }
    rows = [
        [f"{hit['similarity']:.4f}", str(hit["face"]), printable(str(hit["text"]))] for hit in hits
    ]
    text = table(rows, header=["similarity", "face", "caption"]) if rows else "no caption passes"
    emit(values, as_json=as_json, text="\n\n".join([text, *([text_of(plan)] if explain else [])]))


def _warn(flagged: tuple[str, ...]) -> None:
    if flagged:
        quoted = ", ".join(f"'{word}'" for word in flagged)
        click.echo(f"{quoted}: a picture of a face does not tell this", err=True)


def _plan(found: "Found") -> dict[str, Any]:
    from retrieval.explain import explained

    plan: dict[str, Any] = {"strategy": "words", "why": "only captions were asked"}
    if found.answer is not None:
        plan = explained(found.answer)
    return plan if found.worded is None else plan | {"worded": found.worded}


def _plan_text(plan: dict[str, Any]) -> str:
    from retrieval.explain import text_of

    told = [] if plan["strategy"] == "words" else [text_of(plan)]
    if "worded" in plan:
        told.append(f"full-text search: {plan['worded']:,} faces whose captions hold the words")
    return "\n".join(told)


def _hit_values(hit: "Hit") -> dict[str, Any]:
    values: dict[str, Any] = {"similarity": hit.similarity, **record_values(hit.record)}
    values["track"] = hit.record.attributes.get("track")
    if hit.parts:
        values["similarities"] = dict(hit.parts)
    if hit.fused is not None:
        values["fused"] = hit.fused
    return values


def _hit_table(hits: "list[Hit]") -> str:
    if not hits:
        return "no face passes"
    parts = sorted({name for hit in hits for name in hit.parts})
    tracks = [hit.record.attributes.get("track") for hit in hits]
    tracked = any(track is not None for track in tracks)
    return table(
        [
            [
                "-" if hit.similarity is None else f"{hit.similarity:.4f}",
                *(f"{hit.parts[name]:.4f}" if name in hit.parts else "-" for name in parts),
                *record_cells(hit.record),
                *([printable(track or "-")] if tracked else []),
            ]
            for hit, track in zip(hits, tracks, strict=True)
        ],
        header=[
            *("similarity", *parts, "face", "person", "quality", "picture"),
            *(["track"] if tracked else []),
        ],
    )
