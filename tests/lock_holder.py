"""Another process that holds the lock of a run, as a training does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from geohsal.io.run import Run

_HOLD = """
import os, sys, time
from pathlib import Path
from geohsal.io.lock import changing
from geohsal.io.run import Run
with changing(Run(path=Path(sys.argv[1])), "train"):
    if sys.argv[2:] and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(run: Run, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The process, until it is killed; with any word `more` it has a child that outlives it."""
    argv = [sys.executable, "-c", _HOLD, str(run.path), *more]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()
