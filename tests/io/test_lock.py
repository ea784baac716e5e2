"""One command at a time changes a run; a lock never outlives its process."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lock_holder import holder

from geohsal.errors import BusyError, WriteError
from geohsal.io import lock
from geohsal.io.lock import NAME, changing, forget_dead
from geohsal.io.run import Run

pytestmark = pytest.mark.usefixtures("impatient")
NOBODY = 65534


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(path=tmp_path)


def test_another_process_is_named_and_its_lock_dies_with_it(run: Run) -> None:
    with holder(run) as process:
        said = (run.path / NAME).read_bytes()
        with pytest.raises(BusyError) as refused, changing(run, "ingest"):
            pass
        assert (run.path / NAME).read_bytes() == said
        process.send_signal(signal.SIGKILL)
        process.wait()
    when = json.loads(said)["time"]
    assert str(refused.value) == (
        f"{run.path}: geohsal train (process {process.pid} on {socket.gethostname()}, since {when})"
        " is changing this run; wait until it has ended, then give this command again (nothing is "
        "changed)"
    )
    assert refused.value.exit_code == 75
    assert (run.path / NAME).exists()
    with changing(run, "ingest"):
        assert json.loads((run.path / NAME).read_text())["pid"] == os.getpid()
    assert list(run.path.iterdir()) == []


def test_a_child_that_outlives_its_killed_parent_holds_nothing(run: Run) -> None:
    with holder(run, "and a child") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with changing(run, "train"):  # the child still waits for its input
            pass


def test_threads_exclude_each_other_and_none_is_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 30.0)
    inside, seen = [0], []

    def work() -> None:
        for _ in range(20):
            with changing(run, "select"):
                inside[0] += 1
                seen.append(inside[0])
                time.sleep(0.001)  # the others come in if they can
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 80
    assert list(run.path.iterdir()) == []


def test_the_lock_goes_when_the_work_fails(run: Run) -> None:
    with pytest.raises(ZeroDivisionError), changing(run, "train"):
        raise ZeroDivisionError
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "half {", "[]", '{"pid": 1}'])
def test_a_holder_that_says_nothing_still_excludes(run: Run, content: str) -> None:
    path = run.path / NAME
    path.write_text(content)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = ": another geohsal command is changing this run; "
        with pytest.raises(BusyError, match=said), changing(run, "train"):
            pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_the_log_says_so_once(
    run: Run, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with changing(run, "train"):
                pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{run.path}: its file system has no locks ({os.strerror(code)}); see to it that only one "
        "command at a time trains, chooses, ingests or tiles there"
    ]
    assert list(run.path.iterdir()) == []


@pytest.fixture
def shared(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same run where one stands: other users need not come through the folders above it."""
    monkeypatch.chdir(run.path)
    run.path.chmod(0o777)
    return Run(path=Path())


@contextmanager
def another_user() -> Iterator[None]:
    """Without the rights of root; files that nobody may write are to the others what they are."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_a_folder_that_cannot_be_written_needs_no_lock(shared: Run) -> None:
    shared.path.chmod(0o555)
    with another_user(), changing(shared, "train"):
        assert list(shared.path.iterdir()) == []


def test_a_lock_that_only_its_user_may_write_excludes_others(shared: Run) -> None:
    path = shared.path / NAME
    path.touch()
    path.chmod(0o444)
    with path.open() as file, another_user():
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError), changing(shared, "train"):
            pass
        fcntl.flock(file, fcntl.LOCK_UN)
        with changing(shared, "train"):
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(BusyError), changing(shared, "ingest"):
                pass
    assert list(shared.path.iterdir()) == []


def test_a_lock_that_cannot_be_asked_is_one_line(
    shared: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared.path / NAME
    path.touch()
    path.chmod(0o000)
    said = r"^\.lock: cannot be written \(%s\)$"
    with another_user(), pytest.raises(WriteError, match=said % "Permission denied"):
        changing(shared, "train").__enter__()

    def not_to_be_written(*_: object) -> None:  # what NFS says
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    path.chmod(0o444)
    monkeypatch.setattr(fcntl, "flock", not_to_be_written)
    with another_user(), pytest.raises(WriteError, match=said % "Bad file descriptor"):
        changing(shared, "train").__enter__()
    assert path.exists()


def test_a_full_disk_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_opening(monkeypatch, errno.ENOSPC)
    said = r"\.lock: cannot be written \(No space left on device\)"
    with pytest.raises(WriteError, match=said), changing(run, "train"):
        pass


def test_a_lock_that_may_not_be_made_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def none_made(path: Path, flags: int, mode: int = 0o777) -> int:  # SELinux can say so
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", none_made)
    said = r"\.lock: cannot be written \(Permission denied\)"
    with pytest.raises(WriteError, match=said), changing(run, "train"):
        pass


def refuse_opening(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refused(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refused)


def test_only_what_a_dead_command_left_is_removed(run: Run) -> None:
    forget_dead(run)
    with holder(run) as process:
        forget_dead(run)
        assert (run.path / NAME).exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (run.path / NAME).exists()
    forget_dead(run)
    assert not (run.path / NAME).exists()
