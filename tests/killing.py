"""Commands in processes of their own that are killed at chosen moments, and what they leave."""

import hashlib
import json
import multiprocessing
import os
import re
import sqlite3
import sys
import time
import zipfile
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from full_disk import no_file_beyond

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["geohsal.workflows.train", "geohsal.workflows.query", "geohsal.workflows.export"]
)

CLOCK = {"seconds", "created", "time", "datetime"}
"""Keys of records that say when or how long; everything else must be the same."""

TEMPORARY = re.compile(r"(^|/)\.(?!gitignore)|\.part|\.draft|-wal$|-shm$|-journal$")
"""Names of files that only work in progress may have."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of the chain; `{home}` stands for its folder, `{scenes}` for the manifest's."""

    name: str
    arguments: tuple[str, ...]

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
    Stage("export", ("export", "{run}", "-o", "{home}/map.gpkg", "--what", "final")),
)  # fmt: skip


def _work(argv: list[str], log: str, limit: int | None) -> None:
    sys.stdout = sys.stderr = Path(log).open("w", encoding="utf-8")  # noqa: SIM115
    from geohsal.cli.main import cli

    with nullcontext() if limit is None else no_file_beyond(limit):
        cli.main(argv, prog_name="geohsal")


def run(
    argv: list[str], log: Path, *, kill_after: float | None = None, limit: int | None = None
) -> tuple[int | None, float]:
    """Run a command; SIGKILL after some seconds. Gives its exit code (-9: killed) and seconds.

    No file grows beyond `limit` bytes, as on a full disk.
    """
    process = _FORKS.Process(target=_work, args=(argv, str(log), limit))
    process.start()
    began = time.monotonic()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode, time.monotonic() - began


def snapshot(home: Path) -> dict[str, str]:
    """Digest of what each file says, by its name; what only tells the time is left out."""
    found = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.is_file():
            found[name] = hashlib.sha256(_content(path)).hexdigest()[:16]
    return found


def leftovers(home: Path) -> list[str]:
    """Files that no finished command may leave behind."""
    names = (path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    return sorted(name for name in names if TEMPORARY.search(name))


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
