"""How GDAL is asked: options for remote files, and its errors as one line."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError  # raised bare where rasterio wraps nothing around it
from rasterio.errors import NotGeoreferencedWarning, RasterioError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What opening or reading a dataset may raise."""

_SERVERS = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift")
_REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of a bucket to look for side files
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": True,
}


def is_remote(path: str) -> bool:
    """Whether a path is read over a network."""
    scheme, separator, _ = path.partition("://")
    if separator:
        return scheme.rpartition("+")[2] not in ("file", "zip", "tar", "gzip")
    return any(server in path for server in _SERVERS)


def environment(path: str) -> AbstractContextManager[Any]:
    """GDAL options that suit a path: retries and no directory listing over a network."""
    return rasterio.Env(**_REMOTE) if is_remote(path) else nullcontext()


@contextmanager
def quiet() -> Iterator[None]:
    """Without rasterio's warning on files that have no position: geohsal checks that itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_raster(path: str) -> Any:
    """A rasterio dataset open for reading; the caller turns `GDAL_ERRORS` into its own line."""
    with environment(path), quiet():
        return rasterio.open(path)


def reason(error: BaseException) -> str:
    """GDAL's own words for an error, on one line."""
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    text = getattr(deepest, "errmsg", None) or str(deepest) or type(deepest).__name__
    return " ".join(str(text).split()).rstrip(".")
