"""Work off a plan: in this process, in several, in shards on several machines, or under Dask.

Every engine calls `run_chunk`, which leaves a part by one rename; whoever is killed loses the
chunk it was at, and the same command does what is left.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import PartsMissingError, RequestError
from geohsal.io.parts import SUFFIX, Part, is_whole, part_path, read_part, write_part
from geohsal.io.plan import Plan
from geohsal.workflows.pool import look_at_all, one_thread, submit, worker_pool
from geohsal.workflows.progress import Progress

Item = TypeVar("Item")

_AHEAD = 2
"""Chunks per process that wait in the pool: none idles, and none is told of all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The share of one of `count` processes: positions `index`, `index` + `count`, ..."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """What this share has to do of all."""
        return items[self.index :: self.count]


def parse_shard(text: str) -> Shard:
    """Read I/N, I from 0 to N-1.

    Raises:
        RequestError: the text says something else.
    """
    index, slash, count = text.partition("/")
    if slash and index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Shard(index=int(index), count=int(count))
    raise RequestError(f"--shard {text}: write I/N with I from 0 to N-1, for example 0/4")


def refuse_scheduler(scheduler: str | None, *, dry_run: bool) -> None:
    """A dry run needs no workers.

    Raises:
        RequestError: it was given a scheduler.
    """
    if dry_run and scheduler is not None:
        raise RequestError(f"--scheduler {scheduler}: a dry run works here; give one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Windows of one scene that are done together."""

    chunk_id: str
    scene_id: str
    windows: tuple[Window, ...]


class Worker(Protocol):
    """One process at work: a model and files, opened in that process."""

    def run(self, chunk: Chunk) -> Mapping[str, NDArray[Any]]:
        """The arrays of a chunk; they depend on nothing but the chunk."""

    def close(self) -> None:
        """Close what is open."""


class Work(Protocol):
    """What every process needs to do chunks: small, can be pickled, opens nothing by itself."""

    def open(self) -> Worker:
        """A worker of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Who does the work, and who is told of every unit: changes no result.

    `workers` are processes, 1 is this one; `scheduler` is the address of a Dask scheduler whose
    workers do it instead.
    """

    workers: int
    scheduler: str | None
    progress: Progress

    @property
    def alone(self) -> bool:
        """Whether all is done in this process."""
        return self.workers == 1 and self.scheduler is None


def run_chunk(worker: Worker, folder: Path, chunk: Chunk) -> int:
    """Do one chunk and leave its part in `folder`; gives back its units."""
    manifest = {
        "chunk": chunk.chunk_id,
        "scene": chunk.scene_id,
        "units": len(chunk.windows),
    }
    write_part(part_path(folder, chunk.chunk_id), worker.run(chunk), manifest)
    return len(chunk.windows)


def run_plan(plan: Plan, work: Work, folder: Path, *, shard: Shard | None, engine: Engine) -> int:
    """Do the chunks of a plan (of a shard) that have no part yet; gives back how many.

    Args:
        plan: frozen.
        work: what the chunks need.
        folder: of the parts.
        shard: do this share only; None: all.
        engine: who does them.

    Raises:
        LostError: a process died.
        GeohsalError: what chunks raise.
        RequestError: there is no such scheduler, or Dask is not installed.
    """
    todo = _todo(plan, folder, shard)
    if not todo:
        return 0
    progress = engine.progress
    progress.start(plan.stage, int(sum(len(plan.windows_of(place)) for place in todo)))
    chunks = (chunk_of(plan, place) for place in todo)
    if engine.scheduler is not None:
        from geohsal.workflows.dask_engine import run_on_dask

        run_on_dask(engine.scheduler, work, folder, list(chunks), progress=progress)
    elif engine.workers > 1:
        workers = min(engine.workers, len(todo))
        _run_in_processes(work, folder, chunks, workers=workers, progress=progress)
    else:
        _run_here(work, folder, chunks, progress=progress)
    progress.done()
    return len(todo)


def chunk_of(plan: Plan, place: int) -> Chunk:
    """The chunk at this position."""
    return Chunk(
        chunk_id=plan.chunk_ids[place],
        scene_id=plan.scene_of(place),
        windows=tuple(
            Window(col, row, width, height)
            for row, col, height, width in plan.windows_of(place).tolist()
        ),
    )


def _todo(plan: Plan, folder: Path, shard: Shard | None) -> Sequence[int]:
    """Positions of chunks without a part."""
    own: Sequence[int] = range(len(plan.chunk_ids))
    if shard is not None:
        own = shard.of(own)
    there = _names(folder)
    return [
        place
        for place in own
        if f"{plan.chunk_ids[place]}{SUFFIX}" not in there
        or not is_whole(part_path(folder, plan.chunk_ids[place]))
    ]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _run_here(work: Work, folder: Path, chunks: Iterator[Chunk], *, progress: Progress) -> None:
    """With one thread, as in every other process: sums of several differ in the last bit."""
    before = one_thread()
    worker = work.open()
    try:
        for chunk in chunks:
            progress.advance(run_chunk(worker, folder, chunk))
    finally:
        worker.close()
        if before is not None:
            sys.modules["torch"].set_num_threads(before)


def _run_in_processes(
    work: Work, folder: Path, chunks: Iterator[Chunk], *, workers: int, progress: Progress
) -> None:
    with worker_pool(workers, _start, work, folder) as pool:
        waiting = {submit(pool, _run, chunk) for chunk in islice(chunks, _AHEAD * workers)}
        look_at_all(pool)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                progress.advance(future.result())
            free = _AHEAD * workers - len(waiting)
            waiting |= {submit(pool, _run, chunk) for chunk in islice(chunks, free)}


_process: tuple[Worker, Path] | Exception | None = None


def _start(work: Work, folder: Path) -> None:
    """Open the work; what goes wrong is told by the first chunk, a pool only says that it broke."""
    global _process
    one_thread()
    try:
        _process = work.open(), folder
    except Exception as error:
        _process = error


def _run(chunk: Chunk) -> int:
    assert _process is not None, "the pool's initializer has not run"
    if isinstance(_process, Exception):
        raise _process
    worker, folder = _process
    return run_chunk(worker, folder, chunk)


def missing(plan: Plan, folder: Path) -> list[str]:
    """Ids of the chunks without a part, in plan order."""
    return [plan.chunk_ids[place] for place in _todo(plan, folder, None)]


def read_parts(plan: Plan, folder: Path, *, command: str | None = None) -> Iterator[Part]:
    """The parts in plan order.

    Args:
        plan: frozen.
        folder: of the parts.
        command: what fills in what is missing; default: the stage's own.

    Raises:
        PartsMissingError: parts are missing, before the first one is given; or one turns out to be
            damaged: it is removed, and the command makes it anew.
    """
    require_parts(plan, folder, command=command)
    for chunk_id in plan.chunk_ids:
        yield read_one(plan, folder, chunk_id, command=command)


def require_parts(plan: Plan, folder: Path, *, command: str | None = None) -> None:
    """Refuse to merge where parts are missing.

    Raises:
        PartsMissingError: naming their number and the command that fills in.
    """
    lacking = missing(plan, folder)
    if lacking:
        raise PartsMissingError(
            f"{folder}: {len(lacking)} of {len(plan.chunk_ids)} parts are missing; run: "
            f"{command or _command(plan)}"
        )


def read_one(
    plan: Plan,
    folder: Path,
    chunk_id: str,
    *,
    names: Sequence[str] | None = None,
    command: str | None = None,
) -> Part:
    """One part; `names` as in `io.parts.read_part`.

    Raises:
        PartsMissingError: it is missing, or damaged: then it is removed.
    """
    path = part_path(folder, chunk_id)
    part = read_part(path, names)
    if part is None:
        path.unlink(missing_ok=True)
        raise PartsMissingError(
            f"{path}: missing or damaged; run: {command or _command(plan)}, which makes it anew"
        )
    return part


def _command(plan: Plan) -> str:
    return f"geohsal {plan.stage} with the same arguments"


def drop_strangers(plan: Plan, folder: Path) -> None:
    """Remove parts of other plans: of another model, other settings, other scenes."""
    own = {f"{chunk_id}{SUFFIX}" for chunk_id in plan.chunk_ids}
    for name in sorted(_names(folder) - own):
        if name.endswith(SUFFIX) and not name.startswith("."):  # of no process that still writes
            (folder / name).unlink(missing_ok=True)
