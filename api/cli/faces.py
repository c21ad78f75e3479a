"""`facedex list`, `count`, `update`, `delete`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from api.cli.output import (
    Session,
    emit,
    plain,
    printable,
    table,
    with_collection,
    with_json,
    with_where,
)

if TYPE_CHECKING:
    from retrieval.store.faces import FaceRecord


def record_values(record: "FaceRecord") -> dict[str, Any]:
    """One face as the JSON of `search` and `list` shows it."""
    box = record.box
    return {
        "face": record.face,
        "external_id": record.external_id,
        "image": image_name(record),
        "person": record.person,
        "person_id": record.person_id,
        "box": None if box is None else [box.left, box.top, box.right, box.bottom],
        "attributes": record.attributes,
    }


def image_name(record: "FaceRecord") -> str | None:
    """The picture's path; `archive!member` inside an archive."""
    if record.image is None:
        return None
    path = str(plain(record.image))
    return path if record.member is None else f"{path}!{record.member}"


def record_cells(record: "FaceRecord") -> list[str]:
    """One face as a line of a table for people."""
    quality = record.attributes.get("quality")
    return [
        str(record.face),
        record.person or "-",
        "-" if quality is None else f"{quality:.2f}",
        printable(image_name(record) or record.external_id or "-"),
    ]


@click.command(epilog='Example:  facedex list --where "person IS NULL AND quality >= 0.6"')
@with_collection
@with_where()
@click.option("--after", type=int, default=0, help="Begin above this face id (the next page).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@with_json
@click.pass_obj
def list_command(
    session: Session,
    collection: str | None,
    where: str | None,
    after: int,
    limit: int,
    as_json: bool,
) -> None:
    """List faces, by id."""
    with session.facedex(collection=collection) as facedex:
        records = facedex.faces(where=where, after=after, limit=limit)
    last = records[-1].face if len(records) == limit else None
    emit(
        {"faces": [record_values(record) for record in records], "next_after": last},
        as_json=as_json,
        text=table(
            [record_cells(record) for record in records],
            header=["face", "person", "quality", "picture"],
        ),
    )


@click.command(epilog="Example:  facedex count --where \"'glasses' = ANY(tags)\"")
@with_collection
@with_where()
@with_json
@click.pass_obj
def count_command(
    session: Session,
    collection: str | None,
    where: str | None,
    as_json: bool,
) -> None:
    """Count faces."""
    with session.facedex(collection=collection) as facedex:
        count = facedex.count(where=where)
    emit({"count": count}, as_json=as_json, text=str(count))


@click.command(
    epilog="Example:  facedex update --where \"source = 'web'\" --set checked=true --set tags=a,b"
)
@with_collection
@with_where(required=True)
@click.option("--set", "assignments", multiple=True, required=True, metavar="NAME=VALUE",
              help="NAME= clears it.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count.")
@with_json
@click.pass_obj
def update_command(
    session: Session,
    collection: str | None,
    where: str,
    assignments: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set attributes of the faces that pass the filter."""
    with session.facedex(collection=collection) as facedex:
        changes = facedex.parsed_values(_split(assignments))
        if dry_run:
            _emit_dry_run(facedex.count(where=where), as_json=as_json, what="updated")
            return
        count, token = facedex.update(changes, where=where)
    emit({"updated": count, "token": token}, as_json=as_json, text=f"{count} faces updated")


@click.command(epilog='Example:  facedex delete --where "quality < 0.2" --dry-run')
@with_collection
@with_where(required=True)
@click.option("--dry-run", is_flag=True, help="Only count.")
@with_json
@click.pass_obj
def delete_command(
    session: Session,
    collection: str | None,
    where: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete the faces that pass the filter, and images that lose their last face."""
    with session.facedex(collection=collection) as facedex:
        if dry_run:
            _emit_dry_run(facedex.count(where=where), as_json=as_json, what="deleted")
            return
        count, token = facedex.delete(where=where)
    emit({"deleted": count, "token": token}, as_json=as_json, text=f"{count} faces deleted")


def _emit_dry_run(count: int, *, as_json: bool, what: str) -> None:
    emit(
        {"count": count, "dry_run": True},
        as_json=as_json,
        text=f"{count} faces would be {what}; nothing was changed",
    )


def _split(assignments: tuple[str, ...]) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not '{assignment}'")
        pairs[name] = value
    return pairs
