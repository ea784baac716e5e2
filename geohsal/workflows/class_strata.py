"""The classes of a map as strata: area by scene and row, and pixels drawn by area."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geohsal.errors import DataError
from geohsal.geo.area_grid import pixel_areas
from geohsal.geo.coverage import PixelWeight
from geohsal.geo.scene import Scene
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason

_BAND_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """Mapped area (class, row) of each scene, in m2, or in pixels where a scene has no ground."""

    rows: Mapping[str, NDArray[np.float64]]
    unit: str

    @property
    def areas(self) -> NDArray[np.float64]:
        """(class,) area over all scenes."""
        total: NDArray[np.float64] = np.sum([rows.sum(axis=1) for rows in self.rows.values()], 0)
        return total


def measure_strata(
    maps: Mapping[str, Path], scenes: Mapping[str, Scene], *, num_classes: int
) -> Strata:
    """Area of each class by scene and row, reading the maps a few rows at a time.

    Areas are in pixels for all scenes if one of them has no position on Earth.

    Raises:
        DataError: a map is missing, cannot be read, has another size or unknown classes.
    """
    local = any(scenes[scene_id].local for scene_id in maps)
    rows = {}
    for scene_id, path in maps.items():
        scene = scenes[scene_id]
        weight = None if local else pixel_areas(scene)
        found = np.zeros((num_classes, scene.height))
        with _open(path, scene) as source:
            for top in range(0, scene.height, _BAND_ROWS):
                window = Window(0, top, scene.width, min(_BAND_ROWS, scene.height - top))
                codes = source.read(1, window=window)
                _check(path, codes, num_classes)
                found[:, top : top + codes.shape[0]] = _band(codes, top, weight, num_classes)
        rows[scene_id] = found
    return Strata(rows=rows, unit="pixels" if local else "m2")


@contextmanager
def _open(path: Path, scene: Scene) -> Iterator[DatasetReader]:
    try:
        with quiet(), rasterio.open(path) as source:
            if (source.height, source.width) != scene.shape or source.dtypes[0] != "uint8":
                raise DataError(
                    f"{path}: {source.height} x {source.width} pixels of {source.dtypes[0]}, "
                    f"expected the class map of scene {scene.scene_id} "
                    f"({scene.height} x {scene.width}, uint8)"
                )
            yield source
    except GDAL_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None


def _check(path: Path, codes: NDArray[np.uint8], num_classes: int) -> None:
    wrong = codes[(codes >= num_classes) & (codes != np.iinfo(np.uint8).max)]
    if wrong.size:
        raise DataError(
            f"{path}: holds class {int(wrong[0])}, but the run has {num_classes} classes"
        )


def _weights(
    weight: PixelWeight | None, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> NDArray[np.float64]:
    if weight is None:
        return np.ones(len(rows))
    found: NDArray[np.float64] = weight(rows.astype(np.float64), cols.astype(np.float64))
    return found


def _band(
    codes: NDArray[np.uint8], top: int, weight: PixelWeight | None, num_classes: int
) -> NDArray[np.float64]:
    row, col = np.nonzero(codes < num_classes)
    key = codes[row, col].astype(np.int64) * codes.shape[0] + row
    areas = _weights(weight, row + top, col)
    sums = np.bincount(key, weights=areas, minlength=num_classes * codes.shape[0])
    found: NDArray[np.float64] = sums.reshape(num_classes, -1).astype(np.float64)
    return found


def draw_pixels(
    strata: Strata,
    maps: Mapping[str, Path],
    scenes: Mapping[str, Scene],
    *,
    class_id: int,
    number: int,
    rng: np.random.Generator,
) -> dict[tuple[str, int, int], int]:
    """Draw pixels of a class with replacement, by chance in proportion to their area.

    Returns:
        How often each (scene, row, column) was drawn.
    """
    names = list(strata.rows)
    areas = np.concatenate([strata.rows[name][class_id] for name in names])
    ends = np.cumsum(areas)
    starts = np.cumsum([0, *(strata.rows[name].shape[1] for name in names)])
    targets = np.sort(rng.random(number) * ends[-1])
    lines = np.minimum(np.searchsorted(ends, targets, side="right"), np.flatnonzero(areas)[-1])
    found: dict[tuple[str, int, int], int] = {}
    for line in np.unique(lines):
        which = int(np.searchsorted(starts, line, side="right")) - 1
        name, row = names[which], int(line - starts[which])
        inside = targets[lines == line] - (ends[line] - areas[line])
        for col in _columns(maps[name], scenes[name], row, class_id, inside, strata.unit):
            found[name, row, col] = found.get((name, row, col), 0) + 1
    return found


def _columns(
    path: Path,
    scene: Scene,
    row: int,
    class_id: int,
    inside: NDArray[np.float64],
    unit: str,
) -> list[int]:
    """Columns of a row's pixels of a class at these areas, counted from the row's start."""
    with _open(path, scene) as source:
        codes = source.read(1, window=Window(0, row, scene.width, 1))[0]
    cols = np.flatnonzero(codes == class_id)
    weight = None if unit == "pixels" else pixel_areas(scene)
    ends = np.cumsum(_weights(weight, np.full(len(cols), row), cols))
    places = np.minimum(np.searchsorted(ends, inside, side="right"), len(cols) - 1)
    return [int(cols[place]) for place in places]
