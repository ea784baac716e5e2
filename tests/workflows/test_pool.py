"""Processes that work for a command: they end with it, and none dies unnoticed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import toy_work
from toy_work import Counting, ToyJob

from geohsal.errors import LostError, RasterError
from geohsal.workflows import pool
from geohsal.workflows.pool import run_each
from geohsal.workflows.progress import Silent


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_each_item_is_done_once_and_all_units_are_told(tmp_path: Path, workers: int) -> None:
    progress, items = Counting(), [(3, 2), (1, 2), (2, 4)]
    done = dict(run_each(ToyJob(folder=tmp_path), items, workers=workers, progress=progress))
    assert done == {3: 6, 1: 2, 2: 4}
    assert progress.units == 8
    processes = {path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert (str(os.getpid()) in processes) == (workers == 1)


def test_no_more_processes_are_started_than_there_are_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Pool(ProcessPoolExecutor):
        def __init__(self, workers: int, **options: Any) -> None:
            asked.append(workers)
            super().__init__(workers, **options)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Pool)
    job, items = ToyJob(folder=tmp_path), [(1, 1), (2, 1)]
    assert len(list(run_each(job, items, workers=9, progress=Silent()))) == 2
    assert asked == [2]


@pytest.mark.parametrize("workers", [1, 2])
def test_after_an_error_no_other_item_is_begun(tmp_path: Path, workers: int) -> None:
    items = [(-1, 1), *((number, 1) for number in range(9))]
    with pytest.raises(RasterError, match="minus one"):
        list(run_each(ToyJob(folder=tmp_path, nap=1), items, workers=workers, progress=Silent()))
    assert len(list(tmp_path.iterdir())) < workers


def test_a_process_that_dies_is_a_message_before_others_are_done(tmp_path: Path) -> None:
    job, items = ToyJob(folder=tmp_path, nap=60, ballast=bytes(2**20)), [(1, 1), (-2, 1)]
    started = time.monotonic()
    with pytest.raises(LostError, match=r"process died .*; run the same command again"):
        list(run_each(job, items, workers=2, progress=Silent()))
    assert time.monotonic() - started < 50


@pytest.mark.parametrize("submission", [1, 2, 3])
def test_a_process_that_dies_as_it_is_started_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submission: int
) -> None:
    class Pool(ProcessPoolExecutor):
        submissions = 0

        def submit(self, *arguments: Any, **options: Any) -> Any:
            self.submissions += 1
            if self.submissions == submission:
                raise BrokenPipeError  # what the arguments of a new process are written to
            return super().submit(*arguments, **options)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Pool)
    with pytest.raises(LostError, match=r"process died .*; run the same command again"):
        list(run_each(ToyJob(folder=tmp_path), [(1, 1), (2, 1)], workers=2, progress=Silent()))


def test_a_closed_pipe_of_the_reader_is_no_death(tmp_path: Path) -> None:
    done = run_each(ToyJob(folder=tmp_path), [(1, 1), (2, 1)], workers=2, progress=Silent())
    next(done)
    with pytest.raises(BrokenPipeError):
        done.throw(BrokenPipeError())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("everybody", [False, True])
def test_processes_end_with_the_command_that_started_them(
    tmp_path: Path, number: int, everybody: bool
) -> None:
    code = (
        "import sys, pathlib\n"
        "from toy_work import ToyJob\n"
        "from geohsal.workflows.pool import run_each\n"
        "from geohsal.workflows.progress import Silent\n"
        "job = ToyJob(folder=pathlib.Path(sys.argv[1]), nap=60)\n"
        "list(run_each(job, [(1, 1), (2, 1), (3, 1)], workers=2, progress=Silent()))\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(toy_work.__file__).parent)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        within(30, lambda: sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) == 2)
        workers = [path.read_text("utf-8") for path in tmp_path.iterdir()]
        assert not any(map(ended, workers))
        (os.killpg if everybody else os.kill)(command.pid, number)
        command.wait(timeout=20)
        within(20, lambda: all(map(ended, workers)))
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()


def ended(process: str) -> bool:
    """Whether a process is gone, or waits for one that asks after its end."""
    try:
        status = Path(f"/proc/{process}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def within(seconds: float, holds: Callable[[], object]) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
