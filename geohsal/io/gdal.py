"""How GDAL is asked: bounded memory, options for remote files, and its errors as one line.

What the user's environment (or an open `rasterio.Env`) already says wins.
"""

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # raised bare where rasterio wraps nothing around it
from rasterio._path import _parse_path
from rasterio.env import ensure_env_with_credentials, get_gdal_config, set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter

from geohsal.io.atomic import unwritten
from geohsal.io.raster_guard import drivers, refuse_leading_away

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What opening or reading a dataset may raise."""

CACHE_MB = 256
"""GDAL's block cache per process; its own default is 5 % of the machine's memory, for each."""

FILE_THREADS = 4
"""Threads that decode the blocks of one read, or pack those of one file, at most."""

_SIGNAL = "msg="
"""What comes before GDAL's words where rasterio logs an error that it does not raise."""

_SERVERS = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift")
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of a bucket to look for side files
    "GDAL_HTTP_MAX_RETRY": "3",  # after 429, 500, 502, 503 and 504 (GDAL's own list)
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the others try nothing again (GDAL issue 12933)
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the header of a large COG in one request
    "VSI_CACHE": "YES",
}
_ADVICE = (
    (("code: 404", "code: 410"), "the server has no such file; correct the address"),
    (("code: 401", "code: 403"), "the server refuses access; check address and credentials"),
    (("timed out", "timeout"), "the server does not answer in time; run the same command later"),
    (
        ("resolve host", "connect to", "connection refused", "network is unreachable"),
        "the server cannot be reached; check network and address",
    ),
    (
        ("code: 429", "code: 5", "code : 5"),
        "the server is out of order or busy; run the same command later",
    ),
)


def is_remote(path: str) -> bool:
    """Whether a path is read over a network."""
    scheme, separator, _ = path.partition("://")
    if separator:
        return scheme.rpartition("+")[2] not in ("file", "zip", "tar", "gzip")
    return any(server in path for server in _SERVERS)


@contextmanager
def environment(path: str) -> Iterator[None]:
    """GDAL options for opening and reading a path: threads, and what a network needs.

    Side files (.ovr, .msk, .aux.xml) of local rasters are found; beside remote ones nothing is
    looked for.
    """
    bound_memory()
    if is_remote(path):
        # with threads a range that the server refuses becomes wrong pixels, without an error
        # (GDAL issues 11552 and 12426): here the user's own number does not count
        options = _unset(_REMOTE) | {"GDAL_NUM_THREADS": "1"}
    else:
        options = _unset({"GDAL_NUM_THREADS": str(file_threads())})
    with ExitStack() as stack:
        if options:
            stack.enter_context(rasterio.Env(**options))
        yield


def _unset(wanted: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in wanted.items()
        if name not in os.environ and get_gdal_config(name) is None
    }


def file_threads() -> int:
    """Threads for one file: what this process may use, one in a worker among others."""
    if multiprocessing.parent_process() is not None:
        return 1
    return min(FILE_THREADS, allowed_cores())


def allowed_cores() -> int:
    """CPU cores that this process may use; all of the machine where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def bound_memory() -> None:
    """Bound GDAL's block cache of this process, unless the environment sets GDAL_CACHEMAX."""
    if "GDAL_CACHEMAX" not in os.environ and get_gdal_config("GDAL_CACHEMAX") > CACHE_MB * 2**20:
        set_gdal_config("GDAL_CACHEMAX", CACHE_MB * 2**20)


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning on files that have no position: geohsal checks that itself."""
    bound_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def new_raster(part: Path, path: Path, **profile: Any) -> Iterator[DatasetWriter]:
    """A dataset to write; unlike rasterio's it fails where closing does, which writes what is left.

    Args:
        part: the file.
        path: where it will be, for messages.
        profile: as `rasterio.open` takes it.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        with quiet(), rasterio.open(part, "w", **profile) as target:
            yield target
            with _listening() as heard:
                target.close()
    except (RasterioError, CPLE_BaseError) as error:
        raise unwritten(path, reason(error)) from error
    if heard:
        raise unwritten(path, heard[0])


def copy_raster(source: Path, part: Path, path: Path, **options: Any) -> None:
    """Copy a dataset into another format, without side files; arguments as in `new_raster`.

    The bytes do not depend on the number of threads: a COG's blocks stand in their order.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        threads = _unset({"GDAL_NUM_THREADS": str(file_threads())})
        with quiet(), rasterio.Env(GDAL_PAM_ENABLED="NO", **threads), _listening() as heard:
            rasterio.shutil.copy(source, part, **options)
    except (RasterioError, CPLE_BaseError) as error:
        raise unwritten(path, reason(error)) from error
    if heard:
        raise unwritten(path, heard[0])


_one_listens = threading.Lock()
"""The level of rasterio's log is set for all threads."""


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What GDAL says is wrong, in this thread: rasterio only logs it while it closes a dataset."""
    heard: list[str] = []
    thread = threading.get_ident()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = record.getMessage().partition(_SIGNAL)[2].strip("'\"")
            if record.thread == thread and said and not said.startswith("PROJ"):
                heard.append(said)

    logger, ear = logging.getLogger("rasterio._env"), Ear()
    with _one_listens:
        level = logger.level
        logger.addHandler(ear)
        logger.setLevel(logging.INFO)
        try:
            yield heard
        finally:
            logger.removeHandler(ear)
            logger.setLevel(level)


def open_raster(path: str) -> Any:
    """A rasterio dataset open for reading; the caller turns `GDAL_ERRORS` into its own line.

    Raises:
        RasterError: it leads to other files or addresses (`geohsal.io.raster_guard`).
    """
    remote = is_remote(path)
    if not remote:
        refuse_leading_away(path)
    with environment(path), quiet():
        return _open(path, drivers(remote=remote) or None)


def _read_with(path: str, allowed: list[str] | None) -> DatasetReader:
    """As `rasterio.open`, which takes one driver or all."""
    return DatasetReader(_parse_path(path), driver=allowed)


_open: Callable[[str, list[str] | None], DatasetReader] = ensure_env_with_credentials(_read_with)


def reason(error: BaseException) -> str:
    """GDAL's own words for an error, on one line."""
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    text = getattr(deepest, "errmsg", None) or str(deepest) or type(deepest).__name__
    return " ".join(str(text).split()).rstrip(".")


def advice(error: BaseException, path: str, *, otherwise: str) -> str:
    """What to do about an error: over a network the server's word decides, else `otherwise`."""
    if is_remote(path):
        said = reason(error).lower()
        for signs, hint in _ADVICE:
            if any(sign in said for sign in signs):
                return hint
    return otherwise
