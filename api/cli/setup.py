"""`facedex init`, `doctor`, `config`, `upgrade`, `stop`."""

from typing import Any

import click

from api.cli.output import Session, emit, table, with_json

ANSWER_IS_NO = 1


@click.command(epilog="Example:  facedex --home photos.facedex init")
@with_json
@click.pass_obj
def init_command(session: Session, as_json: bool) -> None:
    """Make FACEDEX_HOME, the database and its tables; compile what searches need."""
    with session.facedex() as facedex:
        home = facedex.settings.home
        revision = facedex.revision()
        seconds = facedex.warm()
    emit(
        {"home": str(home), "schema": revision, "compile_seconds": round(seconds, 1)},
        as_json=as_json,
        text=f"ready: {home} (schema {revision}; search compiled in {seconds:.1f} s)",
    )


@click.command(epilog="Example:  facedex doctor --json")
@with_json
@click.pass_obj
def doctor_command(session: Session, as_json: bool) -> int:
    """Examine this installation: settings, database, models, licences, libraries."""
    from facedex.doctor import examine

    findings = examine(session.options)
    bad = [finding for finding in findings if not finding.good]
    emit(
        {
            "ok": not bad,
            "findings": [
                {"what": finding.what, "ok": finding.good, "told": finding.told}
                for finding in findings
            ],
        },
        as_json=as_json,
        text=table(
            [["ok" if one.good else "BAD", one.what, one.told] for one in findings],
            header=["", "what", "found"],
        ),
    )
    return ANSWER_IS_NO if bad else 0


@click.group(epilog="Example:  facedex config show")
def config_command() -> None:
    """Show the settings and where each came from."""


@config_command.command("show")
@with_json
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Show each setting, its value and its origin; passwords are left out."""
    from dataclasses import fields

    from retrieval.settings import configuration, without_password

    read = configuration(session.options)
    settings: dict[str, Any] = {
        field.name: getattr(read.settings, field.name) for field in fields(read.settings)
    }
    settings["database_url"] = without_password(read.settings.database_url)
    emit(
        {name: {"value": value, "origin": read.origins[name]} for name, value in settings.items()},
        as_json=as_json,
        text=table(
            [
                [name, "" if value is None else str(value), read.origins[name]]
                for name, value in settings.items()
            ],
            header=["setting", "value", "origin"],
        ),
    )


@click.command(epilog="Example:  facedex upgrade")
@with_json
@click.pass_obj
def upgrade_command(session: Session, as_json: bool) -> None:
    """Bring the database's tables up to date with this program."""
    from facedex.handle import upgrade_schema

    before, after = upgrade_schema(session.options)
    emit(
        {"before": before, "after": after},
        as_json=as_json,
        text=f"schema {after}, was {before or 'empty'}" if before != after else f"schema {after}",
    )


@click.command(epilog="Example:  facedex stop")
@with_json
@click.pass_obj
def stop_command(session: Session, as_json: bool) -> None:
    """Stop the embedded PostgreSQL; the next command starts it again."""
    from retrieval.settings import configuration
    from retrieval.store import embedded

    stopped = embedded.stop(configuration(session.options).settings.home)
    emit(
        {"stopped": stopped},
        as_json=as_json,
        text="stopped" if stopped else "no embedded PostgreSQL is running here",
    )
