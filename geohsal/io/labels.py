"""Labels and truth on the scene's own grid, from polygons or rasters in any CRS."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from geohsal.errors import LabelError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.class_values import class_values
from geohsal.io.gdal import is_remote
from geohsal.io.label_raster import raster_rows
from geohsal.io.label_vector import BurntRows, vector_shapes
from geohsal.io.manifest import LabelSource

_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRaster:
    """Labels of one scene (row, col): class ids (255 unlabelled) and region numbers (0 none).

    A region is one feature (numbered by fid among those with a class) or, for label rasters, one
    grid cell with labels (numbered row by row); numbers start at 1. `issues` are lines for people.
    """

    classes: NDArray[np.uint8]
    regions: NDArray[np.int32]
    issues: tuple[str, ...] = ()


class LabelRows(Protocol):
    """Labels of a scene, a few rows at a time: each row once, from the top down.

    `regions` is the largest region number.
    """

    regions: int

    def read(self, top: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Class ids (255 unlabelled) and region numbers (0 none) of the next rows (row, col)."""

    def issues(self) -> list[str]:
        """Lines for people on the rows read so far."""


@contextmanager
def label_rows(
    source: LabelSource,
    scene: Scene,
    classes: Sequence[ClassInfo],
    *,
    region_px: int | None,
    where: str,
) -> Iterator[LabelRows]:
    """Labels of a scene, polygons burnt by pixel centre, rasters by the nearest pixel.

    Args:
        source: the manifest's entry.
        scene: the grid that labels are brought onto.
        classes: the manifest's classes.
        region_px: side of the grid cells that cut label rasters into regions; None: no regions.
        where: opens every message, for example "scene 'north': labels".

    Raises:
        LabelError: missing, unreadable, in the wrong place, or with unknown values or classes.
        GeoreferenceError: there is no way from the labels' CRS to the scene's.
    """
    where = f"{where}: {source.path}"
    values = class_values(source, classes)
    if not _is_vector(source, where=where):
        with raster_rows(source.path, scene, values, region_px=region_px, where=where) as rows:
            yield rows
    else:
        shapes = vector_shapes(source, scene, values, where=where)
        yield BurntRows(shapes, scene, last_wins=source.overlap == "last", where=where)


def read_labels(
    source: LabelSource, scene: Scene, classes: Sequence[ClassInfo], *, region_px: int, where: str
) -> LabelRaster:
    """Labels of a whole scene; arguments and errors as in `label_rows`."""
    with label_rows(source, scene, classes, region_px=region_px, where=where) as rows:
        found = np.empty(scene.shape, dtype=np.uint8)
        regions = np.empty(scene.shape, dtype=np.int32)
        for top in range(0, scene.height, _ROWS):
            part = slice(top, min(top + _ROWS, scene.height))
            found[part], regions[part] = rows.read(top, part.stop - top)
        return LabelRaster(classes=found, regions=regions, issues=tuple(rows.issues()))


def read_truth(
    source: LabelSource, scene: Scene, classes: Sequence[ClassInfo], *, where: str
) -> NDArray[np.uint8]:
    """Full ground truth of a scene: class ids (row, col), 255 where there is none.

    Raises:
        LabelError: missing, unreadable, in the wrong place, or with unknown values or classes.
    """
    with label_rows(source, scene, classes, region_px=None, where=where) as rows:
        found = np.empty(scene.shape, dtype=np.uint8)
        for top in range(0, scene.height, _ROWS):
            part = slice(top, min(top + _ROWS, scene.height))
            found[part] = rows.read(top, part.stop - top)[0]
        return found


def _is_vector(source: LabelSource, *, where: str) -> bool:
    """Whether a file holds vector layers; what GDAL cannot open as such is tried as a raster."""
    local = not is_remote(source.path) and not source.path.startswith("/vsi")
    if local and not Path(source.path).exists():
        raise LabelError(f"{where}: no such file; correct the path in the manifest")
    if source.layer is not None or source.field is not None:
        return True
    try:
        return len(pyogrio.list_layers(source.path)) > 0
    except (DataSourceError, OSError):
        return False
