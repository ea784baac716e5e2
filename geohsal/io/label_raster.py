"""Labels from a raster: its values brought onto the scene's grid, nearest neighbour."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geohsal.errors import LabelError
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.class_values import ClassValues, Meaning
from geohsal.io.gdal import GDAL_ERRORS, advice, environment, open_raster, reason
from geohsal.io.georeference import is_engineering, same_grid
from geohsal.io.vector import listing

_STRIP_PIXELS = 4_000_000
_ANY_CRS = CRS.from_epsg(3857)
"""Stands for a grid without position on both sides of a warp, where only the affine counts."""

Cover = Callable[[Window], NDArray[np.bool_]] | None


@contextmanager
def raster_rows(
    path: str, scene: Scene, values: ClassValues, *, region_px: int | None, where: str
) -> Iterator["RasterRows"]:
    """Class ids of a raster on the scene's grid, read a few rows at a time.

    All values are looked at once before the first row is given.

    Args:
        path: of the raster.
        scene: the grid that labels are brought onto.
        values: what the raster's values mean.
        region_px: side of the grid cells that cut labels into regions; None: no regions.
        where: opens every message.

    Raises:
        LabelError: unreadable, on another place, or with values that mean nothing (listed).
    """
    with ExitStack() as stack:
        try:
            with environment(path):
                dataset = stack.enter_context(open_raster(path))
                grid = stack.enter_context(_on_scene_grid(dataset, scene, where=where))
            rows = RasterRows(
                path, dataset, grid, scene=scene, values=values, region_px=region_px, where=where
            )
        except GDAL_ERRORS as error:
            raise _unreadable(path, error, where=where) from None
        yield rows


def _unreadable(path: str, error: BaseException, *, where: str) -> LabelError:
    hint = advice(error, path, otherwise="give a whole raster or vector file")
    return LabelError(f"{where}: cannot be read ({reason(error)}); {hint}")


class RasterRows:
    """The rows of an open label raster; made by `raster_rows`."""

    def __init__(
        self,
        path: str,
        dataset: Any,
        grid: tuple[Any, Cover],
        *,
        scene: Scene,
        values: ClassValues,
        region_px: int | None,
        where: str,
    ) -> None:
        colors = any(isinstance(key, tuple) for key in values.values or {})
        self._bands = _numbers(dataset, colors=colors, where=where)
        palette = dataset.colormap(1) if colors and len(self._bands) == 1 else None
        nodata = dataset.nodata if not colors else None
        self._reading = _Reading(values, palette=palette, nodata=nodata)
        self._path = path
        self._where = where
        self._grid, self._cover = grid
        self._width = scene.width
        self._region_px = region_px
        self._issues = _nodata_issue(dataset, values, colors=colors, where=where)
        self._numbers = cell_numbers(self._survey(scene))
        self.regions = int(self._numbers.max(initial=0))

    def read(self, top: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Class ids and region numbers (row, col) of some rows of the scene.

        Raises:
            LabelError: the file is damaged there.
        """
        try:
            classes, _ = self._classes(top, height)
        except GDAL_ERRORS as error:
            raise _unreadable(self._path, error, where=self._where) from None
        if self._region_px is None:
            return classes, np.zeros(classes.shape, dtype=np.int32)
        return classes, cell_regions(classes, self._numbers, top=top, region_px=self._region_px)

    def issues(self) -> list[str]:
        """What a person should know."""
        return self._issues

    def _classes(self, top: int, height: int) -> tuple[NDArray[np.uint8], bool]:
        """Class ids of some rows, and whether the raster covers any of them."""
        strip = Window(0, top, self._width, height)
        with environment(self._path):
            pixels = self._grid.read(self._bands, window=strip)
            there = None if self._cover is None else self._cover(strip)
        return self._reading.classes(pixels, there), there is None or bool(there.any())

    def _survey(self, scene: Scene) -> NDArray[np.bool_]:
        """Cells (row, col) that hold labels (none where there are no regions).

        Raises:
            LabelError: the raster covers nothing, or holds values that mean nothing.
        """
        side = self._region_px or 1
        rows = max(1, _STRIP_PIXELS // (scene.width * side)) * side
        found, covered = [], False
        for top in range(0, scene.height, rows):
            classes, there = self._classes(top, min(rows, scene.height - top))
            covered |= there
            if self._region_px is not None:
                found.append(labelled_cells(classes, region_px=side))
        if not covered:
            raise LabelError(
                f"{self._where}: does not cover scene {scene.scene_id!r} anywhere; check its CRS "
                "and place"
            )
        self._reading.refuse_unknown(where=self._where)
        return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.bool_)


def _numbers(dataset: Any, *, colors: bool, where: str) -> list[int]:
    """Bands to read: three for colours (one with a palette), else the only one."""
    kinds = set(dataset.dtypes)
    if any(kind.startswith("complex") for kind in kinds):
        raise LabelError(f"{where}: holds complex numbers, no labels")
    bands = [n for n in dataset.indexes if dataset.colorinterp[n - 1] is not ColorInterp.alpha]
    palette = len(bands) == 1 and dataset.colorinterp[bands[0] - 1] is ColorInterp.palette
    if colors and (palette or (len(bands) == 3 and kinds == {"uint8"})):
        return bands
    if not colors and len(bands) == 1:
        return bands
    wanted = "three 8-bit bands or a palette for the colours in values:" if colors else "one band"
    hint = "" if colors else "; labels as colours need values: with RGB triples"
    raise LabelError(f"{where}: has {len(bands)} bands, needs {wanted}{hint}")


@contextmanager
def _on_scene_grid(dataset: Any, scene: Scene, *, where: str) -> Iterator[tuple[Any, Cover]]:
    """The dataset, or a view of it warped onto the scene's grid, and what says where it is.

    Raises:
        LabelError: it lies nowhere, or has no position while the scene has one.
    """
    crs = None if is_engineering(dataset.crs) else dataset.crs
    bare = crs is None and dataset.transform.is_identity
    same_place = same_grid(dataset, scene) and (crs is None or crs == scene.crs)
    if same_place or (scene.local and bare and dataset.shape == scene.shape):
        masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
        yield dataset, (lambda strip: dataset.read_masks(1, window=strip) > 0) if masked else None
        return
    both_local = is_engineering(dataset.crs) and is_engineering(scene.crs)
    if both_local and abs(dataset.transform.a) == abs(scene.transform.a) == 1.0:
        both_local = False  # pixel numbers of two files: coordinates, but not of one place
    if scene.local and not both_local and (crs is None or crs != scene.crs):
        raise LabelError(
            f"{where}: the scene is a pixel grid without a position; its labels need the same "
            f"shape and transform ({scene.height} x {scene.width}), found {dataset.height} x "
            f"{dataset.width}"
        )
    if crs is None and not both_local:
        raise LabelError(f"{where}: has no CRS and not the scene's grid; assign the CRS it lies in")
    with WarpedVRT(
        dataset,
        src_crs=_ANY_CRS if both_local else crs,
        crs=_ANY_CRS if both_local else scene.crs,
        transform=scene.transform,
        width=scene.width,
        height=scene.height,
        resampling=Resampling.nearest,
        src_nodata=None,  # nodata is looked at afterwards: values: may give it a meaning
        add_alpha=not _has_alpha(dataset),
    ) as view:
        yield view, lambda strip: view.read(view.count, window=strip) > 0


def _has_alpha(dataset: Any) -> bool:
    return ColorInterp.alpha in dataset.colorinterp


class _Reading:
    """Turns values into class ids and counts those that mean nothing."""

    def __init__(
        self, values: ClassValues, *, palette: dict[int, tuple[int, ...]] | None, nodata: Any
    ) -> None:
        self.unknown: Counter[str] = Counter()
        self._values = values
        self._palette = palette
        self._nodata = nodata

    def refuse_unknown(self, *, where: str) -> None:
        """Name the values met so far that mean nothing.

        Raises:
            LabelError: there are some.
        """
        if self.unknown:
            ranked = sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))
            found = [f"{text} ({count} pixels)" for text, count in ranked]
            raise LabelError(
                f"{where}: {listing(found)}; map them with values: or list them under ignore:"
            )

    def classes(self, pixels: NDArray[Any], there: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """Class ids (row, col) of pixels (band, row, col); 255 where `there` is False."""
        codes = _packed(pixels) if len(pixels) == 3 else pixels[0]
        out = np.full(codes.shape, IGNORE_INDEX, dtype=np.uint8)
        there = np.ones(codes.shape, dtype=np.bool_) if there is None else there
        if codes.dtype.kind == "f":
            there = there & ~np.isnan(codes)
        found, places, counts = _distinct(codes[there])
        ids = np.full(len(found), IGNORE_INDEX, dtype=np.uint8)
        for index, (value, count) in enumerate(zip(found.tolist(), counts.tolist(), strict=True)):
            meaning = self._meaning(value, triple=len(pixels) == 3)
            ids[index] = meaning.class_id
            if meaning.problem is not None:
                self.unknown[meaning.problem] += count
        out[there] = ids[places]
        return out

    def _meaning(self, value: float, *, triple: bool) -> Meaning:
        if triple:
            code = int(value)
            return self._values.of_triple((code >> 16, code >> 8 & 255, code & 255))
        if self._palette is not None:
            red, green, blue = self._palette[int(value)][:3]
            return self._values.of_triple((red, green, blue))
        if not float(value).is_integer():
            return Meaning(problem=f"value {value:g} is no whole number")
        mapped = self._values.values is not None and int(value) in self._values.values
        if value == self._nodata and not mapped:
            return Meaning()
        return self._values.of_number(int(value))


def _distinct(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Distinct values, the place of each code among them, and their counts; no sort if few."""
    if codes.size == 0 or codes.dtype.kind == "f" or int(codes.max()) - int(codes.min()) > 2**24:
        found, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return found, places.reshape(-1), counts
    low = int(codes.min())
    shifted = codes.astype(np.int64) - low
    tally = np.bincount(shifted)
    present = np.flatnonzero(tally)
    place = np.zeros(tally.size, dtype=np.int64)
    place[present] = np.arange(present.size)
    return present + low, place[shifted], tally[present]


def _packed(pixels: NDArray[Any]) -> NDArray[np.int32]:
    red, green, blue = pixels.astype(np.int32)
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _nodata_issue(dataset: Any, values: ClassValues, *, colors: bool, where: str) -> list[str]:
    nodata = dataset.nodata
    if (
        colors
        or nodata is None
        or values.values is not None
        or nodata not in range(len(values.names))
    ):
        return []
    name = values.names[int(nodata)]
    return [
        f"{where}: value {int(nodata)} is the file's nodata and counts as unlabelled, though it is "
        f"the id of class {name!r}; map it with values: if it means that class"
    ]


def labelled_cells(classes: NDArray[np.uint8], *, region_px: int) -> NDArray[np.bool_]:
    """Which grid cells (row, col) of some rows hold labels; the rows begin with a cell."""
    labelled = classes != IGNORE_INDEX
    cols = np.arange(0, classes.shape[1], region_px)
    strips = [
        np.logical_or.reduceat(labelled[row : row + region_px].any(axis=0), cols)
        for row in range(0, classes.shape[0], region_px)
    ]
    return np.array(strips, dtype=np.bool_)


def cell_numbers(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Numbers (from 1, row by row) of the cells that hold labels; 0 for the others."""
    numbers = np.where(cells.ravel(), np.cumsum(cells.ravel()), 0)
    return numbers.reshape(cells.shape).astype(np.int32)


def cell_regions(
    classes: NDArray[np.uint8], numbers: NDArray[np.int32], *, top: int, region_px: int
) -> NDArray[np.int32]:
    """The number of its cell for every labelled pixel, 0 elsewhere; `top` is the first row."""
    rows = np.arange(top, top + classes.shape[0]) // region_px
    cols = np.arange(classes.shape[1]) // region_px
    regions: NDArray[np.int32] = numbers[rows[:, None], cols[None, :]]
    regions[classes == IGNORE_INDEX] = 0
    return regions
