"""A Dask scheduler with workers of its own processes, as a site has them; one of them is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import geohsal

from geohsal.io.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as found:
        yield found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def kill_one(cluster: Any, parts: Path, killed: list[int]) -> None:
    """Kill a worker once the first part is there."""
    deadline = time.monotonic() + 120
    while not killed and time.monotonic() < deadline:
        if parts.is_dir() and any(parts.glob("[!.]*")):
            worker = next(iter(cluster.workers.values()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.005)


def test_maps_are_those_of_one_process_also_where_a_worker_is_killed(
    trained: Run, cluster: Any, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    geohsal("predict", trained.path, "-o", small)
    killed: list[int] = []
    parts = tmp_path / "dask" / ".predict" / "parts"
    watch = threading.Thread(target=kill_one, args=(cluster, parts, killed))
    watch.start()
    command = ("predict", trained.path, "-o", tmp_path / "dask")
    geohsal(*command, "--scheduler", cluster.scheduler_address)
    watch.join()
    assert killed, "the maps were ready before a worker could be killed"
    assert content(tmp_path / "dask") == content(small)
    assert not (tmp_path / "dask" / ".predict").exists()
