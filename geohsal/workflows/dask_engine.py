"""Work off chunks under a Dask scheduler, for sites whose cluster Dask knows how to use."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import geohsal.errors
from geohsal.errors import GeohsalError, LostError, RequestError
from geohsal.workflows.engine import Chunk, Work, Worker, run_chunk
from geohsal.workflows.pool import one_thread
from geohsal.workflows.progress import Progress

RETRIES = 3
"""Times that a chunk whose worker failed is given to another."""

CONNECT_S = 30

_open = threading.local()
"""The worker of each thread of a Dask worker, kept between chunks."""


def run_on_dask(
    address: str, work: Work, folder: Path, chunks: Sequence[Chunk], *, progress: Progress
) -> None:
    """Do chunks on the workers of a scheduler; they must see `folder` and the scenes.

    Raises:
        RequestError: Dask is not installed, or nothing answers at the address.
        LostError: the workers died.
        GeohsalError: what the chunks raise.
    """
    try:
        dask: Any = import_module("distributed")
    except ImportError:
        raise RequestError(
            f"--scheduler {address}: needs Dask; run: pip install 'geohsal[dask]'"
        ) from None
    client = _connect(dask.Client, address)
    try:
        shared = client.submit(_itself, work, pure=False)  # scattered, it would die with a worker
        tasks = client.map(
            _run, chunks, work=shared, folder=folder.resolve(), retries=RETRIES, pure=False
        )
        with client.as_current():
            for _, found in dask.as_completed(tasks, with_results=True):
                progress.advance(_units(found))
    except dask.KilledWorker:
        raise LostError(
            f"--scheduler {address}: workers died (out of memory?); run the same command again to "
            "go on"
        ) from None
    finally:
        client.close()


def _itself(work: Work) -> Work:
    """A task, so that Dask makes the value again where it is lost."""
    return work


def _connect(client: Any, address: str) -> Any:
    try:
        return client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"--scheduler {address}: no scheduler answers there ({type(error).__name__}); give the "
            "address that dask scheduler printed, like tcp://host:8786"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """An expected error of a worker: a value, so that nobody tries again or prints its stack."""

    kind: str
    text: str


def _run(chunk: Chunk, *, work: Work, folder: Path) -> int | _Failure:
    try:
        return run_chunk(_worker(work), folder, chunk)
    except GeohsalError as error:
        return _Failure(kind=type(error).__name__, text=str(error))


def _units(found: int | _Failure) -> int:
    if isinstance(found, int):
        return found
    kind = getattr(geohsal.errors, found.kind, GeohsalError)
    try:
        error: GeohsalError = kind(found.text)
    except TypeError:  # it takes more than a text
        error = GeohsalError(found.text)
    raise error


def _worker(work: Work) -> Worker:
    known: tuple[Work, Worker] | None = getattr(_open, "known", None)
    if known is not None and known[0] is work:
        return known[1]
    if known is not None:
        known[1].close()
    worker = work.open()
    one_thread()
    _open.known = work, worker
    return worker
