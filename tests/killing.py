"""Commands in processes of their own that are killed at chosen moments, and what they leave.

A moment is a time, or a change of the file system: the process kills itself as it is about to make
the n-th one. Between two changes nothing happens that a later command could see, so that all
changes of a command are all its moments, but for what C libraries write into unfinished files.
"""

import hashlib
import json
import os
import re
import signal
import sqlite3
import sys
import time
import zipfile
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import FORKS
from full_disk import no_file_beyond

CLOCK = {"seconds", "created", "time", "datetime"}
"""Keys of records that say when or how long; everything else must be the same."""

TEMPORARY = re.compile(r"(^|/)\.(?!gitignore)|\.part|\.draft|-wal$|-shm$|-journal$")
"""Names of files that only work in progress may have."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of the chain; `{home}` stands for its folder, `{scenes}` for the manifest's.

    One with `processes` has others write for it, whose changes nobody counts: it is killed at
    times alone.
    """

    name: str
    arguments: tuple[str, ...]
    processes: bool = False

    def argv(self, home: Path, scenes: Path) -> list[str]:
        return [item.format(run=home / "run", home=home, scenes=scenes) for item in self.arguments]


STAGES = (
    Stage("tile", ("tile", "{scenes}/data_manifest.yaml", "-o", "{run}", "-c",
                   "{scenes}/settings.yaml")),
    Stage("train", ("train", "{run}")),
    Stage("query", ("query", "{run}", "--budget", "6regions")),
    Stage("answer", ("answer", "{run}", "{run}/round_000/queries_r000.gpkg", "-o",
                     "{home}/reviewed.gpkg")),
    Stage("ingest", ("ingest", "{run}", "{home}/reviewed.gpkg")),
    Stage("predict", ("predict", "{run}", "-o", "{home}/maps")),
    Stage("predict_by_two", ("predict", "{run}", "-o", "{home}/maps2", "--workers", "2"),
          processes=True),
    Stage("export", ("export", "{run}", "-o", "{home}/map.gpkg", "--what", "final")),
)  # fmt: skip


CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "open": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
}
"""Audited events that change a file system: where their arguments have a name, and the descriptor
of the folder that it is in; of files that are opened only those to be written count."""


@dataclass(slots=True)
class _Changes:
    """Counts the changes in a folder, and ends the process before the one that is `last`.

    An audit hook: it is called with the name and the arguments of what is about to be done.
    """

    folder: str
    last: int | None
    counted: Any
    """Shared with the process that asks."""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        places = CHANGES.get(event)
        if places is None or (event == "open" and not self._writes(arguments)):
            return
        names = [_whole(arguments[at], None if by is None else arguments[by]) for at, by in places]
        if not any(name.is_relative_to(self.folder) for name in names):
            return
        if self.counted.value == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.counted.value += 1

    @staticmethod
    def _writes(arguments: tuple[Any, ...]) -> bool:
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _whole(name: Any, folder: int | None) -> Path:
    """The whole name of what is changed: removing a tree names the folder by a descriptor only."""
    descriptors = Path("/proc/self/fd")
    if isinstance(name, int):
        return (descriptors / str(name)).readlink()
    beside = Path() if folder in (None, -1) else (descriptors / str(folder)).readlink()
    return (beside / os.fsdecode(name)).absolute()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (-9: killed), its time, and the changes that it made."""

    code: int | None
    seconds: float
    changes: int


def _work(
    argv: list[str], log: str, limit: int | None, folder: str, last: int | None, counted: Any
) -> None:
    sys.stdout = sys.stderr = Path(log).open("w", encoding="utf-8")  # noqa: SIM115
    from geohsal.cli.main import cli

    sys.addaudithook(_Changes(folder=folder, last=last, counted=counted))
    with nullcontext() if limit is None else no_file_beyond(limit):
        cli.main(argv, prog_name="geohsal")


def run(
    argv: list[str],
    log: Path,
    *,
    home: Path,
    kill_after: float | None = None,
    kill_before: int | None = None,
    limit: int | None = None,
) -> Outcome:
    """Run a command that may be killed, by SIGKILL.

    Args:
        argv: its arguments.
        log: where it writes what it says.
        home: folder whose changes are counted.
        kill_after: kill it after so many seconds.
        kill_before: kill it before this change, counted from 0.
        limit: no file grows beyond so many bytes, as on a full disk.
    """
    counted = FORKS.Value("q", 0)
    arguments = (argv, str(log), limit, str(home), kill_before, counted)
    process = FORKS.Process(target=_work, args=arguments)
    process.start()
    began = time.monotonic()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    _await_end(process.pid)
    return Outcome(process.exitcode, time.monotonic() - began, counted.value)


def _await_end(pid: int | None) -> None:
    """Until the system has forgotten a process: one that is going down still counts as running."""
    until = time.monotonic() + 10
    while pid is not None and time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} does not end")


def snapshot(home: Path) -> dict[str, str]:
    """Digest of what each file says, by its name; what only tells the time is left out.

    Folders are in it, too: their names end in a slash.
    """
    return {
        name: "" if path.is_dir() else hashlib.sha256(_content(path)).hexdigest()[:16]
        for name, path in _found(home)
    }


def leftovers(home: Path) -> list[str]:
    """Files and folders that no finished command may leave behind."""
    return [name for name, _ in _found(home) if TEMPORARY.search(name)]


def _found(home: Path) -> list[tuple[str, Path]]:
    """All that is in a folder, by its name."""
    return [
        (path.relative_to(home).as_posix() + "/" * path.is_dir(), path)
        for path in sorted(home.rglob("*"))
    ]


def _content(path: Path) -> bytes:
    if path.suffix == ".gpkg":
        return _tables(path)
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text("utf-8"))), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return json.dumps(_timeless(lines), sort_keys=True).encode()
    if path.suffix == ".qgz":
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in sorted(archive.namelist()))
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in CLOCK}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _tables(path: Path) -> bytes:
    """All rows of all tables, without times."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        listed = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        names = sorted(row[0] for row in connection.execute(listed))
        dump = {
            name: sorted(repr(row) for row in connection.execute(f'SELECT * FROM "{name}"'))
            for name in names
            if not name.startswith("rtree_")
        }
    return _TIMES.sub(b"T", json.dumps(dump).encode())


def set_one_thread() -> None:
    """Before the first process starts: the server of forks inherits it."""
    os.environ["OMP_NUM_THREADS"] = "1"
