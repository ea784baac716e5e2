"""One scene of an export: its rasters staged in a temporary folder, then cut into polygons.

Everything is read before the first polygon is written, so that an unreadable scene leaves nothing
behind; a few rows are in memory at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geohsal.errors import GeoreferenceError, RasterError
from geohsal.geo.area_grid import pixel_areas
from geohsal.geo.coverage import Move, Strip, affine_move, cover, to_polygons
from geohsal.geo.polygons import sieve, transformer_between
from geohsal.geo.rings import Rings, gather
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.seams import Complete
from geohsal.geo.states import IGNORE_INDEX, UNDECIDED, PixelState
from geohsal.geo.tracing import OUTSIDE
from geohsal.io.atomic import unwritten
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason
from geohsal.io.geopackage import map_transform, same_crs
from geohsal.io.label_store import read_label_raster
from geohsal.io.mapped import mapped_array
from geohsal.io.polygon_file import PolygonBatch
from geohsal.io.run import RasterKind, Round, Run

What = Literal["refined", "final"]
SOURCES = ("teacher", "confirmed", "corrected", "label", "undecided")
KINDS: tuple[RasterKind, ...] = ("class", "state", "confidence")

STRIP_PX = 8 * 2**20
"""Pixels in memory at a time, about: some 30 bytes each while they are traced."""

STRIP_ROWS = 512
"""Strips are multiples of this: blocks of the rasters are read once."""

BATCH_VERTICES = 4 * 2**20

_SOURCE_OF_STATE = {
    PixelState.CONFIRMED: 1,
    PixelState.CORRECTED: 2,
    PixelState.LABELLED: 3,
    **dict.fromkeys(UNDECIDED, 4),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """Rows of plain values, written one after the other and read by number."""

    path: Path
    dtype: Any
    width: int

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end."""
        with self.path.open("ab") as stream:
            rows.astype(self.dtype).tofile(stream)

    def read(self, window: Window) -> NDArray[Any]:
        """The rows of a window as wide as the scene."""
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        count, offset = window.height * self.width, window.row_off * row_bytes
        found = np.fromfile(self.path, dtype=self.dtype, count=count, offset=offset)
        return found.reshape(window.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedScene:
    """What a scene's polygons are made of, as files of plain values; `codes` are 0 where outside.

    A code is 1 + class, or 1 + class x sources + source where polygons are cut by source too.
    """

    scene: Scene
    codes: NDArray[Any]
    sources: RowFile
    confidence: RowFile
    by_source: bool

    def class_ids(self, codes: NDArray[Any]) -> NDArray[np.int32]:
        """Classes of codes."""
        numbers = codes.astype(np.int32) - 1
        return numbers // len(SOURCES) if self.by_source else numbers


def strip_rows(scene: Scene) -> int:
    """Rows of a strip of a scene."""
    blocks = STRIP_PX // (max(scene.width, 1) * STRIP_ROWS)
    return max(1, blocks) * STRIP_ROWS


def stage(
    run: Run,
    round_: Round,
    scene: Scene,
    *,
    num_classes: int,
    what: What,
    sieve_px: int,
    folder: Path,
) -> StagedScene:
    """Read the rasters of a scene into files under `folder`, sieved.

    Raises:
        RasterError: a raster of the round is missing, damaged or on another grid.
        DataError: the labels are damaged, or the folder is full.
    """
    by_source = what == "refined"
    dtype = np.min_scalar_type(num_classes * (len(SOURCES) if by_source else 1))

    def array(name: str, dtype: Any) -> Any:
        return mapped_array(folder / f"{name}.bin", dtype, scene.shape)

    sources = RowFile(path=folder / "sources.bin", dtype=np.uint8, width=scene.width)
    confidence = RowFile(path=folder / "confidence.bin", dtype=np.float32, width=scene.width)
    try:
        codes = array("codes", dtype)
        with ExitStack() as stack:
            rasters = [_open(round_.raster(scene.scene_id, kind), scene, stack) for kind in KINDS]
            for window in _windows(scene):
                at = slice(window.row_off, window.row_off + window.height)
                classes, state, sure = (_band(raster, window) for raster in rasters)
                mask = (state != PixelState.NODATA) & (classes != IGNORE_INDEX)
                origin = _sources(state)
                if what == "final":
                    answered = read_label_raster(run.labels(scene.scene_id), window).classes
                    known = answered != IGNORE_INDEX
                    classes[known], origin[known] = answered[known], SOURCES.index("label")
                if (classes[mask] >= num_classes).any():
                    raise RasterError(f"{rasters[0].name}: holds unknown classes; query again")
                codes[at] = _codes(classes.astype(dtype), origin if by_source else None, mask)
                sources.append(origin)
                confidence.append(np.nan_to_num(sure))
        if sieve_px > 1:
            inside = array("mask", np.bool_)
            np.not_equal(codes, OUTSIDE, out=inside)
            codes = sieve(codes, mask=inside, size_px=sieve_px, out=array("sieved", dtype))
    except OSError as error:
        raise unwritten(folder, error) from None
    return StagedScene(
        scene=scene, codes=codes, sources=sources, confidence=confidence, by_source=by_source
    )


def _codes(
    classes: NDArray[Any], origin: NDArray[np.uint8] | None, mask: NDArray[np.bool_]
) -> NDArray[Any]:
    codes = classes if origin is None else classes * classes.dtype.type(len(SOURCES)) + origin
    kind = classes.dtype.type
    inside: NDArray[Any] = np.where(mask, codes + kind(1), kind(OUTSIDE))
    return inside


def _open(path: Path, scene: Scene, stack: ExitStack) -> DatasetReader:
    try:
        with quiet():
            source = stack.enter_context(rasterio.open(path))
    except GDAL_ERRORS as error:
        raise RasterError(
            f"{path}: cannot be read ({reason(error)}); query the round again"
        ) from None
    if (source.height, source.width) != scene.shape:
        raise RasterError(f"{path}: is not on the scene's grid; query the round again")
    return source


def _band(source: DatasetReader, window: Window) -> NDArray[Any]:
    try:
        band: NDArray[Any] = source.read(1, window=window)
    except GDAL_ERRORS as error:
        raise RasterError(
            f"{source.name}: cannot be read ({reason(error)}); query the round again"
        ) from None
    return band


def _windows(scene: Scene) -> Iterator[Window]:
    step = strip_rows(scene)
    for top in range(0, scene.height, step):
        yield Window(0, top, scene.width, min(step, scene.height - top))


def _sources(state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    table[list(_SOURCE_OF_STATE)] = list(_SOURCE_OF_STATE.values())
    found: NDArray[np.uint8] = table[state]
    return found


def batches(
    staged: StagedScene, classes: Sequence[ClassInfo], crs: CRS | None, *, simplify_px: float
) -> Iterator[PolygonBatch]:
    """The polygons of a scene in the CRS of a file, in batches of bounded size.

    Raises:
        GeoreferenceError: the scene has no position in that CRS.
    """
    areas = pixel_areas(staged.scene)
    move, step_px = _placing(staged.scene, crs)
    weight = areas or (lambda row, _: np.zeros_like(row))
    for complete in cover(_strips(staged), weight=weight, simplify_px=simplify_px):
        for part in _split(complete):
            yield PolygonBatch(
                polygons=to_polygons(part.rings, move=move, step_px=step_px),
                columns=_columns(staged, part, classes, local=areas is None),
            )


def _strips(staged: StagedScene) -> Iterator[Strip]:
    height = staged.scene.height
    for window in _windows(staged.scene):
        top, bottom = window.row_off, window.row_off + window.height
        yield Strip(
            top=top,
            codes=np.array(staged.codes[top:bottom]),
            before=staged.codes[top - 1] if top else None,
            after=np.array(staged.codes[bottom]) if bottom < height else None,
            values=[staged.confidence.read(window)],
            kind=staged.sources.read(window),
            kinds=len(SOURCES),
        )


def _placing(scene: Scene, crs: CRS | None) -> tuple[Move, float | None]:
    """How rings get into a file's CRS, and their vertex distance where lines bend on the way."""
    if crs is None or scene.crs is None or same_crs(scene.crs, crs):
        return affine_move(map_transform(scene)), None
    to_scene, transformer = affine_move(scene.transform), transformer_between(scene.crs, crs)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = np.column_stack(transformer.transform(*to_scene(points).T))
        if not np.isfinite(moved).all():
            raise GeoreferenceError(
                f"scene {scene.scene_id}: some of it has no position in {crs.to_string()}; check "
                "its CRS"
            )
        return moved

    return move, 1.0


def _split(complete: Complete) -> Iterator[Complete]:
    """Polygons in groups of about BATCH_VERTICES vertices."""
    rings = complete.rings
    if not complete.codes.size:
        return
    first_ring = np.flatnonzero(np.diff(rings.patch, prepend=-1))
    group = rings.offsets[first_ring] // BATCH_VERTICES
    for bounds in np.split(np.arange(complete.codes.size), np.flatnonzero(np.diff(group)) + 1):
        low, high = bounds[0], bounds[-1] + 1
        ring_from = first_ring[low]
        ring_to = first_ring[high] if high < first_ring.size else rings.patch.size
        points, offsets = gather(rings.points, rings.offsets, np.arange(ring_from, ring_to))
        yield Complete(
            codes=complete.codes[low:high],
            sums=complete.sums[low:high],
            rings=Rings(points=points, offsets=offsets, patch=rings.patch[ring_from:ring_to] - low),
        )


def _columns(
    staged: StagedScene, part: Complete, classes: Sequence[ClassInfo], *, local: bool
) -> Mapping[str, Any]:
    pixels, areas, confidence = part.sums[:, :3].T
    class_ids = staged.class_ids(part.codes)
    most = part.sums[:, 3:].argmax(axis=1)
    return {
        "class_id": class_ids,
        "class_name": np.array([info.name for info in classes], dtype=object)[class_ids],
        "source": np.array(SOURCES, dtype=object)[most],
        "confidence": np.round(confidence / pixels, 4),
        "scene_id": np.full(class_ids.size, staged.scene.scene_id, dtype=object),
        "area_m2": [None] * class_ids.size if local else np.round(areas, 2),
    }
