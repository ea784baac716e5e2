"""Work off a plan: in this process, in several, in shards on several machines, or under Dask.

Every engine calls `run_chunk`, which leaves a part by one rename; whoever is killed loses the
chunk it was at, and the same command does what is left.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import LostError, PartsMissingError, RequestError
from geohsal.io.parts import SUFFIX, Part, is_whole, part_path, read_part, write_part
from geohsal.io.plan import Plan
from geohsal.workflows.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

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
    with _pool(workers, _start, work, folder) as pool:
        waiting = {_given(pool, _run, chunk) for chunk in islice(chunks, _AHEAD * workers)}
        _look_at_all(pool)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                progress.advance(future.result())
            free = _AHEAD * workers - len(waiting)
            waiting |= {_given(pool, _run, chunk) for chunk in islice(chunks, free)}


@contextmanager
def _pool(
    workers: int, start: Callable[..., None], *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Processes that each begin with `start`; what they have not begun goes with the block.

    Raises:
        LostError: a process died.
    """
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(start, arguments),
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise LostError(
            "a worker process died (out of memory?); run the same command again to go on, with "
            "fewer --workers"
        ) from None
    except KeyboardInterrupt:  # of this process alone, perhaps; parts and maps are never half there
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _given(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item
) -> Future[Result]:
    """What comes of an item.

    Raises:
        BrokenProcessPool: a process died, as it was started perhaps.
    """
    try:
        return pool.submit(function, item)
    except BrokenPipeError:
        raise BrokenProcessPool from None


def _look_at_all(pool: ProcessPoolExecutor) -> None:
    """Let the pool notice the death of every process, once it was given as much as it has.

    It looks after a process from the first submission or result that comes when it is started.
    """
    pool.submit(int)


def _begin(start: Callable[..., None], arguments: Sequence[object]) -> None:
    """A worker ends with the command that started it, and when the user interrupts both."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a script may ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    start(*arguments)


def end_with_parent() -> None:
    """Let this process end with the one that started it, however that ends.

    A command that was killed is given again: nothing of the first may then still be at work.
    """
    parent = parent_process()
    assert parent is not None, "this process was started by no other"

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=follow, daemon=True).start()


Tell = Callable[[], None]
"""Called after each unit of an item."""


def run_each(
    job: Callable[[Item, Tell], Result],
    items: Sequence[tuple[Item, int]],
    *,
    workers: int,
    progress: Progress,
) -> Generator[tuple[Item, Result], None, None]:
    """Items that need nothing of each other, as they are done; in processes where that helps.

    Args:
        job: does one item; can be pickled.
        items: what there is to do, each with the number of its units; can be pickled.
        workers: processes, 1 is this one. No more are started than there are items, and each is
            given one at a time.
        progress: told of every unit, in processes once the item is done.

    Raises:
        LostError: a process died.
        GeohsalError: what the job raises.
    """
    workers = min(workers, len(items))
    if workers < 2:
        for item, size in items:
            told = _Told(progress)
            yield item, job(item, told)
            progress.advance(size - told.units)
        return
    with _pool(workers, _start_job, job) as pool:
        todo = iter(items)
        waiting = {_given(pool, _run_job, one[0]): one for one in islice(todo, workers)}
        _look_at_all(pool)
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                item, size = waiting.pop(future)
                yield item, future.result()
                progress.advance(size)
                waiting |= {_given(pool, _run_job, one[0]): one for one in islice(todo, 1)}


class _Told:
    """Tells of units, and counts them: an item that fails has told of some."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.units = 0

    def __call__(self) -> None:
        self.units += 1
        self._progress.advance()


_job: Callable[[Any, Tell], Any] | None = None


def _start_job(job: Callable[[Any, Tell], Any]) -> None:
    """Keep the job of all items, which may be larger than they are."""
    global _job
    one_thread()
    _job = job


def _run_job(item: object) -> Any:
    assert _job is not None, "the pool's initializer has not run"
    return _job(item, _untold)


def _untold() -> None:
    """Units of an item in another process are told when it is done."""


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


def one_thread() -> int | None:
    """Compute with one thread; torch is there if the work needs it.

    Returns:
        The number of threads before; None where torch is not loaded.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    before: int = torch.get_num_threads()
    torch.set_num_threads(1)
    return before


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
