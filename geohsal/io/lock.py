"""One command at a time changes the round of a run; the lock ends with the process that holds it.

It is the operating system's (flock), so that a killed command leaves none. The file only gives it
a place and says who holds it; it goes with the lock. One that a killed command left locks nothing.
Windows has no flock and no `fcntl`: commands that change a run end there as they are imported.
"""

import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from geohsal.errors import BusyError, WriteError
from geohsal.io.atomic import unwritten
from geohsal.io.run import Run

logger = logging.getLogger(__name__)

NAME = ".lock"

PATIENCE_S = 0.5
"""How long a lock is asked for: another command may only have looked whether it is free."""

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_held: set[int] = set()
"""Descriptors of the locks of this process; a forked one closes its copies, or it would hold them
on when this one is killed."""


@contextmanager
def changing(run: Run, command: str, *, refused: str = "nothing is changed") -> Iterator[None]:
    """Be the only command that changes the open round of a run.

    Threads exclude each other, too. Where the file system knows no locks the log says so once. In
    a folder that cannot be written nothing is locked: what would be changed there fails by itself.

    Args:
        run: the run.
        command: name of the command that asks, for people who find it at work.
        refused: what a message says of this command, where another is at work.

    Raises:
        BusyError: another command holds the lock.
        WriteError: the lock's file cannot be made, or not be opened.
    """
    path = run.path / NAME
    handle = _taken(path, run, refused)
    if handle is None:
        yield
        return
    _held.add(handle)
    try:
        _sign(handle, command)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: nobody else can have made it their own
        _held.discard(handle)
        os.close(handle)


def forget_dead(run: Run) -> None:
    """Remove the lock file of a killed command; for commands that find nothing else to do."""
    path = run.path / NAME
    with suppress(OSError):  # there is none, or the folder is not ours: it does no harm
        handle = os.open(path, os.O_RDWR)
        try:
            if _try(handle, run.path) and _is_in_place(handle, path):
                path.unlink()
        finally:
            os.close(handle)


def _taken(path: Path, run: Run, refused: str) -> int | None:
    """A descriptor that holds the lock; None in a folder that cannot be written."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            handle = _opened(path)
        except OSError as refusal:
            if time.monotonic() > until:
                raise unwritten(path, refusal) from None
            time.sleep(0.02)
            continue
        if handle is None:
            return None
        try:
            free = _try(handle, run.path)
        except WriteError:
            os.close(handle)
            raise
        if free and _is_in_place(handle, path):
            return handle
        os.close(handle)  # taken, or removed by the one who held it
        if not free and time.monotonic() > until:
            raise BusyError(
                f"{run.path}: {_holder(path)} is changing this run; wait until it has ended, then "
                f"give this command again ({refused})"
            )
        time.sleep(0.02)


def _opened(path: Path) -> int | None:
    """The lock's file, made if need be; None in a folder that cannot be written.

    One that another user made and that only they may write is opened to be read, and locked so: a
    command that is killed before it can sign leaves such a file.

    Raises:
        OSError: it may not be made, and its holder has just removed it; or none can be made.
        WriteError: it cannot be made or opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise unwritten(path, error) from None
        refusal = error
    if not os.access(path.parent, os.W_OK):
        return None
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise refusal from None
    except OSError as error:
        raise unwritten(path, error) from None


def _try(handle: int, folder: Path) -> bool:
    """Whether the lock could be taken, or there are none.

    Raises:
        WriteError: only who may write the file can lock it here, and this command may not.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:  # NFS
            raise unwritten(folder / NAME, error) from None
        _warn(folder, error.strerror or str(error))
    return True


@cache
def _warn(folder: Path, reason: str) -> None:
    """Once for each folder."""
    logger.warning(
        "%s: its file system has no locks (%s); see to it that only one command at a time trains, "
        "chooses, ingests or tiles there",
        folder,
        reason,
    )


def _is_in_place(handle: int, path: Path) -> bool:
    """Whether the file that was locked is still the one that others will find."""
    try:
        found = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(handle), found)


def _sign(handle: int, command: str) -> None:
    """Say who holds the lock; on a full disk it holds without a word."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    holder = {
        "command": command,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": now.replace("+00:00", "Z"),
    }
    with suppress(OSError):
        os.fchmod(handle, 0o666)  # whoever shares the run must be able to ask
    with suppress(OSError):
        os.ftruncate(handle, 0)  # what a killed command left in it
        os.pwrite(handle, (json.dumps(holder, sort_keys=True) + "\n").encode(), 0)


def _holder(path: Path) -> str:
    """Who holds the lock, in words."""
    try:
        said = json.loads(path.read_text("utf-8"))
        command, pid, host = (str(said[key]) for key in ("command", "pid", "host"))
        return f"geohsal {command} (process {pid} on {host}, since {said['time']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another geohsal command"


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
