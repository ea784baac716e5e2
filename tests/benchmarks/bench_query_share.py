"""How much of a query's time PLAR takes.

    python tests/benchmarks/bench_query_share.py RUN [--repeats 3] [--out FILE.csv]

RUN is a run whose open round is trained; it is copied, and queried with one worker on one thread.
PLAR's time is what `refine` takes, from suspects to states. With PYTHONPATH another commit is
measured on the same run, if that can read it. One row is appended per repetition.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from measure import RESULTS, append_rows, cpu_machine

import geohsal
from geohsal.training import judgement
from geohsal.workflows.query import query

COLUMNS = (
    "commit", "machine", "run", "features", "suspects", "query_s", "plar_s", "share",
    "us_per_suspect",
)  # fmt: skip


class Watch:
    """Stands in for `refine` and adds up its time and its suspects."""

    def __init__(self) -> None:
        self._refine = judgement.refine
        self.seconds = 0.0
        self.suspects = 0
        self.features = 0

    def __call__(self, features, pseudo, suspect, *arguments, **options):
        self.suspects += int(suspect.sum())
        self.features = features.shape[1]
        start = time.perf_counter()
        try:
            return self._refine(features, pseudo, suspect, *arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start


def measure(run_dir: Path, budget: str) -> dict[str, object]:
    """One query of a copy of the run."""
    watch = Watch()
    judgement.refine = watch
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / run_dir.name
        shutil.copytree(run_dir, copy)
        start = time.perf_counter()
        query(copy, budget=budget)
        seconds = time.perf_counter() - start
    judgement.refine = watch._refine
    return {
        "features": watch.features,
        "suspects": watch.suspects,
        "query_s": round(seconds, 3),
        "plar_s": round(watch.seconds, 3),
        "share": round(watch.seconds / seconds, 4),
        "us_per_suspect": round(1e6 * watch.seconds / max(1, watch.suspects), 2),
    }


def main() -> None:
    """Query, print, append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--budget", default="60regions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "query_share.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(geohsal.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    rows = []
    for _ in range(options.repeats):
        row = {"commit": commit, "machine": cpu_machine(), "run": options.run.name}
        rows.append(row | measure(options.run, options.budget))
        print(rows[-1], flush=True)
    append_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
