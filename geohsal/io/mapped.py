"""Arrays in files, for what does not fit into memory."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geohsal.io.atomic import unwritten

_PIECE = 2**20


def mapped_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """A new array of zeros in a file, with all of its place on disk taken at once.

    Without that, writing into the array on a full disk would kill the process (SIGBUS).

    Raises:
        WriteError: there is no space for it, or the folder cannot be written.
    """
    size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
    try:
        with path.open("wb") as file:
            _reserve(file.fileno(), size)
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        raise unwritten(path, error) from None


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    for start in range(0, size, _PIECE):  # macOS has no such call
        os.write(handle, bytes(min(_PIECE, size - start)))
