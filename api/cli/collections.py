"""`facedex collection`."""

import click

from api.cli.output import Session, emit, table, with_json
from retrieval.values import FieldType


@click.group(epilog="Example:  facedex collection attributes family album=text year=integer")
def collection_command() -> None:
    """List, create, drop collections; declare attributes."""


@collection_command.command("list")
@with_json
@click.pass_obj
def list_collections(session: Session, as_json: bool) -> None:
    """List collections with their spaces and sizes."""
    with session.facedex() as facedex:
        found = facedex.overview()
    emit(
        {
            "collections": [
                {"name": one.name, "space": one.space, "images": one.images, "faces": one.faces}
                for one in found
            ]
        },
        as_json=as_json,
        text=table(
            [[one.name, one.space or "-", str(one.images), str(one.faces)] for one in found],
            header=["collection", "space", "images", "faces"],
        ),
    )


@collection_command.command("create")
@click.argument("name")
@click.option("--demographics", is_flag=True, help="Estimate age and gender of faces.")
@with_json
@click.pass_obj
def create(session: Session, name: str, demographics: bool, as_json: bool) -> None:
    """Make a collection."""
    with session.facedex() as facedex:
        token = facedex.create(name, demographics=demographics)
    emit({"collection": name, "token": token}, as_json=as_json, text=f"made '{name}'")


@collection_command.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_json
@click.pass_obj
def drop(session: Session, name: str, yes: bool, as_json: bool) -> None:
    """Delete a collection with all its faces."""
    with session.facedex() as facedex:
        count = facedex.count(collection=name)
        if not yes:
            click.confirm(f"Delete '{name}' with {count} faces for ever?", abort=True, err=True)
        token = facedex.drop(name)
    emit(
        {"collection": name, "faces": count, "token": token},
        as_json=as_json,
        text=f"dropped '{name}' with {count} faces",
    )


@collection_command.command("attributes")
@click.argument("name")
@click.argument("declarations", nargs=-1, metavar="[ATTRIBUTE=TYPE]...")
@with_json
@click.pass_obj
def attributes(
    session: Session,
    name: str,
    declarations: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what a filter may name; declare more attributes.

    TYPE is number, integer, text, boolean, timestamp or tags.
    """
    with session.facedex() as facedex:
        if declarations:
            facedex.declare(dict(map(_declaration, declarations)), collection=name)
        fields = facedex.fields(facedex.collection(name))
    emit(
        {"fields": fields},
        as_json=as_json,
        text=table(
            [[field, str(type_)] for field, type_ in fields.items()], header=["field", "type"]
        ),
    )


def _declaration(word: str) -> tuple[str, FieldType]:
    name, equals, type_ = word.rpartition("=")
    if not equals or type_ not in list(FieldType):
        raise click.UsageError(f"'{word}': write NAME=TYPE, TYPE one of {', '.join(FieldType)}")
    return name, FieldType(type_)
