"""Rows of a scene set aside on disk: planes of large scenes without their memory."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from geohsal.io.atomic import unwritten

_PIECE_ROWS = 64
"""Rows that are packed together."""


class RowSpill:
    """A plane (row, col) that is written from the top down and read in any slices of rows.

    It lives in a temporary file without a name, so that a killed process leaves nothing; what is
    mostly one value takes hardly any room.
    """

    def __init__(self, folder: Path, *, width: int, dtype: DTypeLike) -> None:
        self._folder = folder
        self._width = width
        self._dtype = np.dtype(dtype)
        self._codec = pa.Codec("lz4_raw")
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `close`)
        self._tops = [0]
        self._places: list[tuple[int, int]] = []

    def append(self, rows: NDArray[np.generic]) -> None:
        """Add rows below those that are there.

        Raises:
            WriteError: the disk is full.
        """
        for top in range(0, rows.shape[0], _PIECE_ROWS):
            self._append(np.ascontiguousarray(rows[top : top + _PIECE_ROWS], dtype=self._dtype))

    def _append(self, piece: NDArray[np.generic]) -> None:
        packed = self._codec.compress(piece, asbytes=True)
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(packed)
        except OSError as error:
            raise unwritten(self._folder, error) from None
        self._places.append((place, len(packed)))
        self._tops.append(self._tops[-1] + piece.shape[0])

    def __getitem__(self, rows: slice, /) -> NDArray[np.generic]:
        """Rows from `rows.start` to before `rows.stop`."""
        first, last = rows.start, min(rows.stop, self._tops[-1])
        low = int(np.searchsorted(self._tops, first, side="right")) - 1
        high = int(np.searchsorted(self._tops, last, side="left"))
        pieces = [self._piece(number) for number in range(low, high)]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole[first - self._tops[low] : last - self._tops[low]]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _piece(self, number: int) -> NDArray[np.generic]:
        place, size = self._places[number]
        shape = (self._tops[number + 1] - self._tops[number], self._width)
        self._file.seek(place)
        room = int(np.prod(shape)) * self._dtype.itemsize
        plain = self._codec.decompress(self._file.read(size), decompressed_size=room)
        return np.frombuffer(plain, dtype=self._dtype).reshape(shape)
