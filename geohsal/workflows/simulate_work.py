"""Work through the tasks of a simulation, here or in several processes; failures stop no other."""

import logging
import os
import traceback
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from geohsal.errors import GeohsalError
from geohsal.io.atomic import write_text
from geohsal.workflows.pool import end_with_parent
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.simulate_cell import Study, run_task
from geohsal.workflows.simulate_plan import Task, with_starts

Outcome = tuple[Task, str | None]
"""A finished task and one line on its failure, None where it went well."""

DIED = (
    "a worker process died, most often for want of memory; run the same command again with fewer "
    "--jobs"
)


def work(study: Study, todo: Sequence[Task], *, jobs: int, progress: Progress) -> Iterator[Outcome]:
    """Do all tasks and the rounds 0 that they need; what needs one that failed fails with it."""
    tasks = list(with_starts(todo))
    if jobs > 1 and len(tasks) > 1:
        yield from _together(study, tasks, jobs=jobs, progress=progress)
        return
    failed: set[Task] = set()
    for task in tasks:
        failure = _after(task, failed) or attempt(study, task, progress)
        if failure:
            failed.add(task)
        yield task, failure


def attempt(study: Study, task: Task, progress: Progress | None = None) -> str | None:
    """Do a task; one line on what went wrong, or None. A mistake of geohsal leaves a traceback."""
    try:
        run_task(study, task, progress or Silent())
    except GeohsalError as error:
        return " ".join(str(error).split())
    except Exception as error:  # hours of other cells must not be lost to one
        path = study.folder.error(task)
        write_text(path, traceback.format_exc())
        return f"{type(error).__name__}: {error}; a mistake of geohsal, please report {path}"
    return None


def _after(task: Task, failed: Collection[Task]) -> str | None:
    return f"its round 0 failed ({task.before})" if task.before in failed else None


def _together(
    study: Study, tasks: Sequence[Task], *, jobs: int, progress: Progress
) -> Iterator[Outcome]:
    """Tasks in several processes, in their order as far as rounds 0 allow."""
    waiting, failed = list(tasks), set[Task]()
    running: dict[Future[str | None], Task] = {}
    progress.start("cells", len(tasks))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(
        min(jobs, len(tasks)),
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(threads,),
    ) as pool:
        while waiting or running:
            for task in _ready(waiting, running.values(), room=jobs - len(running)):
                waiting.remove(task)
                running[_submit(pool, study, task, failed)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, failure = running.pop(future), _outcome(future)
                if failure:
                    failed.add(task)
                progress.advance()
                yield task, failure
    progress.done()


def _ready(waiting: Sequence[Task], running: Collection[Task], *, room: int) -> list[Task]:
    """The next tasks whose round 0 is over."""
    open_ = {*waiting, *running}
    return [task for task in waiting if task.before not in open_][: max(room, 0)]


def _submit(
    pool: ProcessPoolExecutor, study: Study, task: Task, failed: Collection[Task]
) -> Future[str | None]:
    """A task under way; over at once where its round 0 failed or there are no workers left."""
    failure = _after(task, failed)
    if failure is None:
        try:
            return pool.submit(attempt, study, task)
        except BrokenProcessPool:
            failure = DIED
    over: Future[str | None] = Future()
    over.set_result(failure)
    return over


def _outcome(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return DIED


def _begin(threads: int) -> None:
    """A worker takes its share of the cores, and ends with the command that started it."""
    logging.getLogger("geohsal").addHandler(logging.NullHandler())  # records hold the warnings
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    end_with_parent()
