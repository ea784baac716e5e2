"""Labels of a scene as training reads them: class, region number and round of every pixel."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import LabelError
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import replacing
from geohsal.io.gdal import GDAL_ERRORS, new_raster, quiet, reason

FORMAT_VERSION = 1
MANIFEST_ROUND = -1
"""Round of the labels that came with the manifest, and of pixels that nobody labelled."""
FIRST_ANSWER_REGION = 1 << 24
"""Answered regions are numbered from here; the manifest's regions lie below, so that labels added
to the manifest later never collide with answers."""
_FILLS = (IGNORE_INDEX, 0, MANIFEST_ROUND)
_BANDS = ("class", "region", "round")
_STRIPE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelArrays:
    """Labels of a window, all (row, col).

    `classes` holds class ids (255 unlabelled), `regions` the number of the labelled region (0
    none), `rounds` the round that gave the label (-1 the manifest, and where there is none).
    """

    classes: NDArray[np.uint8]
    regions: NDArray[np.int32]
    rounds: NDArray[np.int32]

    def copy(self) -> "LabelArrays":
        """Arrays that may be written to."""
        return LabelArrays(
            classes=self.classes.copy(), regions=self.regions.copy(), rounds=self.rounds.copy()
        )

    def equals(self, other: "LabelArrays") -> bool:
        """True where all three arrays are the same."""
        return (
            np.array_equal(self.classes, other.classes)
            and np.array_equal(self.regions, other.regions)
            and np.array_equal(self.rounds, other.rounds)
        )


def empty_labels(shape: tuple[int, int]) -> LabelArrays:
    """Nothing labelled."""
    return LabelArrays(
        classes=np.full(shape, IGNORE_INDEX, dtype=np.uint8),
        regions=np.zeros(shape, dtype=np.int32),
        rounds=np.full(shape, MANIFEST_ROUND, dtype=np.int32),
    )


class Rows(Protocol):
    """A plane of a scene that gives any of its rows: an array, or what stands for one."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows (row, col)."""


def write_label_raster(
    path: Path, classes: Rows, regions: Rows, rounds: Rows, *, scene: Scene
) -> None:
    """Write the labels of a whole scene on its grid: int32 GeoTIFF, no nodata, whole or not at all.

    Each plane is asked for its rows once, from the top down, one plane after the other.

    Raises:
        WriteError: the folder cannot be written or the disk is full.
    """
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "int32",
        "count": 3,
        "height": scene.height,
        "width": scene.width,
        "crs": scene.crs,
        "transform": scene.transform,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "interleave": "band",
        "bigtiff": "if_safer",
        "sparse_ok": False,
    }
    with (
        replacing(path) as part,
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        new_raster(part, path, **profile) as target,
    ):
        target.descriptions = _BANDS
        target.update_tags(format_version=FORMAT_VERSION)
        for band, plane in enumerate((classes, regions, rounds), start=1):
            for rows in _stripes(scene.height):
                window = Window(0, rows.start, scene.width, rows.stop - rows.start)
                target.write(plane[rows].astype(np.int32), band, window=window)


def read_label_raster(path: Path, window: Window | None = None) -> LabelArrays:
    """Labels of a window (None: of the scene); outside the scene nothing is labelled.

    Raises:
        LabelError: the file is missing, damaged or not a label raster.
    """
    with LabelReader(path) as reader:
        return reader.read(window)


class LabelReader:
    """A label raster open for many windows; a context manager, not shared between processes.

    Raises:
        LabelError: the file is missing, damaged or not a label raster.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with quiet():
                self._source = rasterio.open(path)
        except GDAL_ERRORS as error:
            raise self._unreadable(error) from None
        if self._source.count != 3 or self._source.dtypes[0] != "int32":
            found = f"{self._source.count} bands of {self._source.dtypes[0]}"
            self.close()
            raise LabelError(
                f"{path}: not a label raster (found {found}); delete it and run geohsal tile again"
            )

    def read(self, window: Window | None = None) -> LabelArrays:
        """Labels of a window (None: of the scene); outside the scene nothing is labelled.

        Raises:
            LabelError: the file is damaged there.
        """
        whole = Window(0, 0, self._source.width, self._source.height)
        try:
            return _read(self._source, window or whole)
        except GDAL_ERRORS as error:
            raise self._unreadable(error) from None

    def rows(self, wanted: slice) -> LabelArrays:
        """Labels of some rows of the scene; raises as `read`."""
        return self.read(Window(0, wanted.start, self._source.width, wanted.stop - wanted.start))

    def classes(self) -> NDArray[np.uint8]:
        """Class ids (row, col) of the whole scene in one byte a pixel; raises as `read`."""
        found = np.empty(self._source.shape, dtype=np.uint8)
        try:
            for rows in _stripes(self._source.height):
                window = Window(0, rows.start, self._source.width, rows.stop - rows.start)
                found[rows] = self._source.read(1, window=window)
        except GDAL_ERRORS as error:
            raise self._unreadable(error) from None
        return found

    def _unreadable(self, error: BaseException) -> LabelError:
        return LabelError(
            f"{self._path}: cannot be read ({reason(error)}); delete it and run geohsal tile again"
        )

    def close(self) -> None:
        """Give the file back; a second time does nothing."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(source: rasterio.DatasetReader, window: Window) -> LabelArrays:
    top, left = round(window.row_off), round(window.col_off)
    height, width = round(window.height), round(window.width)
    row_from, row_to = max(top, 0), min(top + height, source.height)
    col_from, col_to = max(left, 0), min(left + width, source.width)
    planes = [np.full((height, width), fill, dtype=np.int32) for fill in _FILLS]
    if row_from < row_to and col_from < col_to:
        inside = Window(col_from, row_from, col_to - col_from, row_to - row_from)
        found = source.read(window=inside)
        for plane, band in zip(planes, found, strict=True):
            plane[row_from - top : row_to - top, col_from - left : col_to - left] = band
    return LabelArrays(classes=planes[0].astype(np.uint8), regions=planes[1], rounds=planes[2])


def _stripes(height: int) -> Iterator[slice]:
    for top in range(0, height, _STRIPE):
        yield slice(top, min(top + _STRIPE, height))
