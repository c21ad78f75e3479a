"""The schema's version: Alembic brings a database up to date, a cheap look says whether it is.

The migrations travel with the program, so its own version is known without a database and
without Alembic: their file names begin with their revision, 0001, 0002, ...
"""

import re
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from retrieval.errors import StoreVersionError
from retrieval.store.database import Store

UPGRADE_LOCK: Final = 0x66616365  # "face": upgrades take turns
UNDEFINED_TABLE: Final = "42P01"
_FILE: Final = re.compile(r"(\d{4})_\w+\.py")


def upgrade(store: Store) -> None:
    """Bring the database to this program's version, in one transaction.

    Raises:
        StoreVersionError: the database is newer than this program.
    """
    found = current(store)
    if found == head():
        return
    _refuse_newer(found)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    with store.writing() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")  # nothing, where another process was faster


def current(store: Store) -> str | None:
    """The database's version; None where it has no tables yet."""
    with store.reading() as connection:
        try:
            found = connection.scalars(text("SELECT version_num FROM alembic_version")).first()
        except ProgrammingError as cause:
            if getattr(cause.orig, "sqlstate", None) == UNDEFINED_TABLE:
                return None
            raise
    return None if found is None else str(found)


def head() -> str:
    """This program's version of the schema."""
    names = (_FILE.fullmatch(path.name) for path in (_folder() / "versions").iterdir())
    return max(name[1] for name in names if name)


def require_current(store: Store) -> None:
    """Raise StoreVersionError where the database is not of this program's version."""
    found = current(store)
    if found == head():
        return
    _refuse_newer(found)
    at = "has no tables yet" if found is None else f"is at version {found}"
    raise StoreVersionError(f"the database {at}, {head()} is needed: run `facedex upgrade`")


def _refuse_newer(found: str | None) -> None:
    if found is not None and found > head():
        raise StoreVersionError(
            f"the database is at version {found}, newer than this program ({head()}): "
            "install a newer Facedex"
        )


def _folder() -> Path:
    """The migrations: inside `retrieval` in a wheel, beside the packages in a checkout."""
    package = Path(__file__).parents[1]
    # Not the other way round: beside the packages of an installation lie other people's.
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"
