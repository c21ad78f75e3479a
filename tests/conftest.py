"""What tests share: one real PostgreSQL a session, one database a test, the pictures."""

import itertools
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from retrieval.kernels.compiled import use_cache
from retrieval.store import embedded, schema
from retrieval.store.database import Store, open_store

REPOSITORY = Path(__file__).parents[1]
NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
}
MEMORY_DISK_MIN = 4 * 2**30
SETTINGS_KEPT = {"FACEDEX_TEST_DATA", "FACEDEX_PREDICATES"}
_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller's settings, and keep what is compiled for the next process and run."""
    for name in list(os.environ):  # noqa: TID251
        if name.startswith("FACEDEX_") and name not in SETTINGS_KEPT:
            del os.environ[name]  # noqa: TID251
    use_cache(compiled_in(config))


def compiled_in(config: pytest.Config) -> Path:
    """Where kernels are kept that were compiled once, for every process and run of tests."""
    return config.cache.mkdir("facedex") if config.cache else REPOSITORY / ".pytest_cache"


@pytest.fixture(scope="session")
def compiled(pytestconfig: pytest.Config) -> Path:
    """What a process that a test starts may hand to `use_cache`."""
    return compiled_in(pytestconfig)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The pictures, or a skip that says where they were looked for."""
    named = os.environ.get("FACEDEX_TEST_DATA")  # noqa: TID251
    folder = Path(named) if named else REPOSITORY / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no pictures in {folder}: set FACEDEX_TEST_DATA")
    return folder.resolve()


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A FACEDEX_HOME that leaves neither a server nor data behind."""
    memory = Path("/dev/shm")  # noqa: S108  (a clone takes 40 ms there, up to 800 on a busy disk)
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_DISK_MIN
    below = memory if roomy else None
    with tempfile.TemporaryDirectory(prefix="facedex-home-", dir=below) as folder:
        home = Path(folder)
        home.chmod(0o755)  # the server's user must get in
        try:
            yield home
        finally:
            embedded.stop(home)
            data = (home / "postgres").resolve()
            if embedded.SHARED in data.parents:  # where TMPDIR is closed to others
                shutil.rmtree(data.parent)


@pytest.fixture
def home(compiled: Path) -> Iterator[Path]:
    """A FACEDEX_HOME of the test's own; the server that runs in it is stopped afterwards."""
    with temporary_home() as folder:
        yield with_kernels(folder, compiled)


def with_kernels(home: Path, compiled: Path) -> Path:
    """The home, whose processes use and keep the compiled code that all tests share."""
    (compiled / "kernels").mkdir(exist_ok=True)
    (home / "kernels").symlink_to(compiled / "kernels")
    return home


@pytest.fixture(scope="session")
def new_home(compiled: Path) -> Iterator[Callable[[], Path]]:
    """Makes a FACEDEX_HOME for several tests; its server is stopped with the session."""
    with ExitStack() as homes:
        yield lambda: with_kernels(homes.enter_context(temporary_home()), compiled)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.ServerAddress]:
    """One PostgreSQL for the session, quick and not durable."""
    with temporary_home() as folder:
        yield embedded.ensure_running(folder, overrides=NOT_DURABLE)


@pytest.fixture(scope="session")
def template(server: embedded.ServerAddress) -> str:
    """The name of a migrated, empty database; nothing may be connected to it."""
    _administer(server, "CREATE DATABASE base")
    with open_store(_database_url(server, "base")) as store:
        schema.upgrade(store)
    return "base"


@pytest.fixture
def database_url(server: embedded.ServerAddress, template: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    with new_database(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def database_url_of_module(server: embedded.ServerAddress, template: str) -> Iterator[str]:
    """The same for a module whose tests only read what it was filled with."""
    with new_database(server, template) as url:
        yield url


@contextmanager
def new_database(server: embedded.ServerAddress, template: str) -> Iterator[str]:
    """A migrated, empty database, dropped afterwards."""
    name = f"test_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database_url(server, name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open store on a database of the test's own."""
    with open_store(database_url) as opened:
        yield opened


def _database_url(server: embedded.ServerAddress, name: str) -> str:
    return server.url.replace("/postgres?", f"/{name}?")


def _administer(server: embedded.ServerAddress, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def lfw_small(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,580 pictures of 158 people, a folder for each person."""
    folder = tmp_path_factory.mktemp("lfw")
    wanted = set((data_dir / "lfw" / "lfw_small.txt").read_text().split())
    with tarfile.open(data_dir / "lfw" / "lfw_deepfunneled.tar.gz") as archive:
        members = [member for member in archive if member.name in wanted]
        archive.extractall(folder, members=members, filter="data")
    return folder / "lfw"
