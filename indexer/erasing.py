"""Erasing a person for good: out of the store, the kept pictures, and every index snapshot.

What is erased is written to `erasures.jsonl` in the home, and is on the disk, before the database
commits: from that moment on it happens, whoever is killed. Opening Facedex compares that ledger
with the table `erasure`. What only the ledger knows was interrupted, or brought back by the restore
of an older backup, and is erased again; what only the table knows came from another home, and is
added. So never restore an older copy of the ledger together with a backup of the database.

The bytes of deleted rows lie in PostgreSQL's files and its log until it uses their place anew. No
query finds them; `VACUUM FULL` and a checkpoint remove them sooner.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from indexer.originals import remove_originals
from indexer.publish import remove_all_others
from retrieval.errors import BuildFailedError, FacedexError, StoreConflictError
from retrieval.index.snapshot import snapshots_folder
from retrieval.store import audit
from retrieval.store.collections import collection_of_id
from retrieval.store.database import Store, token
from retrieval.store.holdings import Holding, holding_of, kinds_of, label_of
from retrieval.store.people import erasing
from retrieval.store.people.erasing import Erasure
from retrieval.store.people.events import take_turn
from retrieval.values import Collection, CollectionId, PersonId, Token

if TYPE_CHECKING:
    from indexer.build import BuildReport

LEDGER: Final = "erasures.jsonl"
BUILDER_WAIT_S_MAX: Final = 600.0  # another's build of ten million faces
BUILDER_POLL_S: Final = 0.5
_ID: Final = re.compile(rb'\{"erasure": "([0-9a-f]{32})", ')


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What is gone."""

    erasure: str  # its number in the ledger
    persons: int
    faces: int
    images: int
    token: Token


def erase(store: Store, person: PersonId, *, home: Path, collection: Collection) -> Erased:
    """Erase a person, who is not merged into another, with all that is held of it.

    Raises:
        StoreConflictError: another process went on building the index; the rows are gone, and the
            older snapshots go at the next opening.
        BuildFailedError: everything is gone, but there is no index: build one.
    """
    with store.writing() as connection:
        take_turn(connection, collection)
        doomed = erasing.of_person(connection, person, collection=collection)
        erasure = doomed.erasure
        append(home, [erasure])
        remove_originals(doomed.hashes, home=home)
        erasing.erase_rows(connection, doomed, remembered=erasure)
        counts = {
            "persons": len(erasure.persons),
            "faces": len(erasure.faces),
            "images": len(erasure.images),
        }
        audit.record(connection, "erase", collection, **counts)
        written = token(connection)
    _clean_waiting(store, collection.id, home=home)
    return Erased(erasure=erasure.id, token=written, **counts)


def finish(store: Store, *, home: Path) -> None:
    """Erase what the ledger names and the store still, or again, has; clean what was left.

    Takes two short queries where nothing is to be done.
    """
    on_file = ids_on_file(home)
    with store.reading() as connection:
        in_store = erasing.recorded_ids(connection)
        missing_on_file = erasing.recorded(connection, sorted(in_store - on_file))
    if missing_on_file:
        append(home, missing_on_file)
    if on_file - in_store:
        replay(store, home=home, known=in_store)
    with store.reading() as connection:
        unclean = erasing.unclean_collections(connection)
    for collection_id in unclean:
        # Whoever builds at this moment is the one that erases, or leaves it to the next opening.
        # Without an index everything is read from the store: no reason not to open.
        with suppress(StoreConflictError, BuildFailedError):
            _clean(store, collection_id, home=home)


def replay(store: Store, *, home: Path, known: set[str]) -> None:
    """Erase again what the ledger names, but those erasures that the store knows."""
    for erasure in on_file(home):
        if erasure.id in known:
            continue
        with store.writing() as connection:
            collection = collection_of_id(connection, erasure.collection_id)
            if collection is not None:
                take_turn(connection, collection)
            if erasing.recorded(connection, [erasure.id]):
                continue  # another process was faster
            doomed = erasing.found_again(connection, erasure)
            remove_originals(doomed.hashes, home=home)
            erasing.erase_rows(connection, doomed, remembered=erasure)
            audit.record(connection, "erase again", collection, faces=len(doomed.erasure.faces))


def append(home: Path, erasures: list[Erasure]) -> None:
    """Add lines to the ledger; they are on the disk when this returns."""
    home.mkdir(parents=True, exist_ok=True)
    lines = "".join(_line(erasure) for erasure in erasures).encode()
    with (home / LEDGER).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _drop_torn_line(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ids_on_file(home: Path) -> set[str]:
    """The erasures that the ledger names."""
    return {_id(line, home) for line in _lines(home)}


def on_file(home: Path) -> Iterator[Erasure]:
    """The erasures of the ledger, the oldest first."""
    for line in _lines(home):
        try:
            told = json.loads(line)
            yield erasing.read(told["erasure"], told["collection"], told)
        except (ValueError, KeyError, TypeError) as cause:
            raise _unreadable(home) from cause


def _clean_waiting(store: Store, collection_id: CollectionId, *, home: Path) -> None:
    """Clean the index; wait while another process builds one."""
    began = time.perf_counter()
    while True:
        try:
            _clean(store, collection_id, home=home)
        except StoreConflictError:
            if time.perf_counter() - began > BUILDER_WAIT_S_MAX:
                raise
            time.sleep(BUILDER_POLL_S)
        else:
            return


def _clean(store: Store, collection_id: CollectionId, *, home: Path) -> None:
    """Publish snapshots without what was erased, where there are any, and remove all others."""
    with store.reading() as connection:
        ids = erasing.unclean_erasures(connection, collection_id)
        collection = collection_of_id(connection, collection_id)
    if not ids:
        return
    # What was seen for training is kept face by face; it is seen again when it is needed.
    shutil.rmtree(training_folder(home, collection_id), ignore_errors=True)
    shutil.rmtree(likeness_folder(home, collection_id), ignore_errors=True)  # and pictures
    folder = home / "snapshots" / str(collection_id)
    try:
        kept = [] if collection is None else _published_anew(store, collection, folder, home=home)
    except BuildFailedError:
        shutil.rmtree(folder)  # rather no index than one that shows who was erased
        _note_clean(store, collection_id, ids, kept=[])
        raise
    _note_clean(store, collection_id, ids, kept=kept)


def training_folder(home: Path, collection_id: CollectionId) -> Path:
    """Where features of a collection's faces are kept between trainings (indexer/teaching.py)."""
    return home / "training" / str(collection_id)


def likeness_folder(home: Path, collection_id: CollectionId) -> Path:
    """Where small squares of a collection's pictures are kept to find copies (likening.py)."""
    return home / "likeness" / str(collection_id)


def _published_anew(store: Store, collection: Collection, folder: Path, *, home: Path) -> list[str]:
    """Build every index that there is below `folder`; nothing else is left there. Give their ids.

    They are trained from nothing: the centroid of a list of one face is that face.
    """
    if collection.space_id is None or not folder.is_dir():
        return []
    kept: dict[Path, str] = {}
    for kind in kinds_of(collection):
        holding = holding_of(store, collection, kind)
        its = snapshots_folder(home, collection_id=collection.id, space=label_of(holding))
        if its.is_dir():
            kept[its] = _built(holding, home=home).snapshot
            remove_all_others(holding, its)
    for other in set(folder.iterdir()) - kept.keys():
        shutil.rmtree(other)
    return list(kept.values())


def _built(holding: Holding, *, home: Path) -> "BuildReport":
    from indexer.build import build  # heavy, and an opening rarely needs it

    return build(holding, home=home)


def _note_clean(
    store: Store, collection_id: CollectionId, ids: list[str], *, kept: list[str]
) -> None:
    with store.writing() as connection:
        erasing.note_clean(connection, collection_id, ids, kept=kept)


def _line(erasure: Erasure) -> str:
    """The id stands first, so that it is found without reading the rest."""
    told = {"erasure": erasure.id, "collection": erasure.collection_id}
    return json.dumps({**told, **erasing.written(erasure)}) + "\n"


def _lines(home: Path) -> list[bytes]:
    """The whole lines; one that was torn by a crash was never followed by a commit."""
    try:
        content = (home / LEDGER).read_bytes()
    except FileNotFoundError:
        return []
    return content.split(b"\n")[:-1]


def _id(line: bytes, home: Path) -> str:
    found = _ID.match(line)
    if found is None:
        raise _unreadable(home)
    return found[1].decode()


def _unreadable(home: Path) -> FacedexError:
    return FacedexError(
        f"{home / LEDGER} holds a line that cannot be read. Bring it back from a backup: without it"
        " a restored database may show people who were erased"
    )


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut off what was being written when the machine stopped."""
    content = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
    os.ftruncate(file.fileno(), content.rfind(b"\n") + 1)
