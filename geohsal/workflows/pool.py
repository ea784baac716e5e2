"""Processes of one command that work for it: they end with it, and a dead one is a message."""

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, connection, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from geohsal.errors import LostError
from geohsal.workflows.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def worker_pool(
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


def submit(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item
) -> Future[Result]:
    """Have the pool do an item.

    Raises:
        BrokenProcessPool: a process died, as it was started perhaps.
    """
    try:
        return pool.submit(function, item)
    except BrokenPipeError:
        raise BrokenProcessPool from None


def look_at_all(pool: ProcessPoolExecutor) -> None:
    """Let the pool notice the death of every process, once it was given as much as it has.

    It looks after a process from the first submission or result that comes when it is started.
    """
    submit(pool, int, 0)


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
    with worker_pool(workers, _start_job, job) as pool:
        todo = iter(items)
        waiting = {submit(pool, _run_job, one[0]): one for one in islice(todo, workers)}
        look_at_all(pool)
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                item, size = waiting.pop(future)
                yield item, future.result()
                progress.advance(size)
                waiting |= {submit(pool, _run_job, one[0]): one for one in islice(todo, 1)}


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
