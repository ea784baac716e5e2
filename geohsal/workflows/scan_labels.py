"""Labels of a scene under scan: read by strips, counted, and written as the run's rasters."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import LabelError
from geohsal.geo.scene import ClassInfo, Scene, Tile
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.label_store import (
    FIRST_ANSWER_REGION,
    MANIFEST_ROUND,
    LabelArrays,
    write_label_raster,
)
from geohsal.io.labels import LabelRows, label_rows
from geohsal.io.ledger import LedgerEntry, replayed_planes
from geohsal.io.manifest import SceneSource
from geohsal.io.row_spill import RowSpill
from geohsal.io.run import Run
from geohsal.io.run_tables import heldout_labels


def _nothing(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Classes and regions of rows in which nothing is labelled."""
    shape = (height, width)
    return np.full(shape, IGNORE_INDEX, dtype=np.uint8), np.zeros(shape, dtype=np.int32)


class _NoLabels:
    """Rows of a scene without labels."""

    regions = 0

    def __init__(self, width: int) -> None:
        self._width = width

    def read(self, top: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        return _nothing(height, self._width)

    def issues(self) -> list[str]:
        return []


@contextmanager
def manifest_labels(
    source: SceneSource, scene: Scene, classes: Sequence[ClassInfo], *, region_px: int
) -> Iterator[LabelRows]:
    """The manifest's labels of a scene, a few rows at a time.

    Raises:
        LabelError: missing, unreadable, not fitting, or of too many regions.
        GeoreferenceError: there is no way from the labels' CRS to the scene's.
    """
    if source.labels is None:
        yield _NoLabels(scene.width)
        return
    where = f"scene {scene.scene_id!r}: labels"
    with label_rows(source.labels, scene, classes, region_px=region_px, where=where) as rows:
        if rows.regions >= FIRST_ANSWER_REGION:
            raise LabelError(
                f"{where}: more than {FIRST_ANSWER_REGION - 1} labelled regions; cut the scene up "
                "or raise query.region_px"
            )
        yield rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBand:
    """Labels of whole rows of a scene, to be written to.

    `classes` and `regions` (row, col) stay for training; `heldout` takes the classes and regions
    of val and test pixels, None where the scene has neither.
    """

    window: Window
    classes: NDArray[np.uint8]
    regions: NDArray[np.int32]
    heldout: tuple[NDArray[np.uint8], NDArray[np.int32]] | None


class LabelFiles:
    """Label rasters of one scene: bands from the top down, then all is written.

    Args:
        stage: folder laid out like a run; None: nothing is kept or written.
        scene: the grid.
        heldout: whether labels of val and test pixels are kept apart.
    """

    def __init__(self, stage: Path | None, scene: Scene, *, heldout: bool) -> None:
        self._stage = stage
        self._scene = scene
        self._holds_back = heldout
        self._any_heldout = False
        self._spills: list[RowSpill] = []

    def band(self, labels: LabelRows, strip: Sequence[Tile]) -> LabelBand:
        """The labels of the rows of some tiles, read from the manifest's source."""
        top = int(strip[0].core.row_off)
        height = max(int(tile.core.row_off + tile.core.height) for tile in strip) - top
        classes, regions = labels.read(top, height)
        apart = _nothing(*classes.shape) if self._holds_back else None
        window = Window(0, top, self._scene.width, height)
        return LabelBand(window=window, classes=classes, regions=regions, heldout=apart)

    def append(self, band: LabelBand) -> None:
        """Set the rows of a band aside."""
        if self._stage is None:
            return
        planes: list[NDArray[Any]] = [band.classes, band.regions, *(band.heldout or ())]
        if not self._spills:
            self._stage.mkdir(parents=True, exist_ok=True)
            self._spills = [
                RowSpill(self._stage, width=self._scene.width, dtype=plane.dtype)
                for plane in planes
            ]
        for spill, plane in zip(self._spills, planes, strict=True):
            spill.append(plane)
        if band.heldout is not None:
            self._any_heldout |= bool((band.heldout[0] != IGNORE_INDEX).any())

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write the manifest's labels, those with answers burnt in, and those held back."""
        if self._stage is None:
            return
        stage, scene = Run(path=self._stage), self._scene
        classes, regions, *apart = self._spills
        rounds = np.broadcast_to(np.int32(MANIFEST_ROUND), scene.shape)
        base, current = stage.base_labels(scene.scene_id), stage.labels(scene.scene_id)
        write_label_raster(base, classes, regions, rounds, scene=scene)
        if entries:
            answered = replayed_planes(self._base, entries, height=scene.height)
            write_label_raster(current, *answered, scene=scene)
        else:
            shutil.copyfile(base, current)
        if apart and self._any_heldout:
            path = heldout_labels(stage, scene.scene_id)
            write_label_raster(path, apart[0], apart[1], rounds, scene=scene)

    def _base(self, rows: slice) -> LabelArrays:
        """The manifest's labels of some rows."""
        classes, regions = self._spills[:2]
        here = classes[rows].astype(np.uint8)
        return LabelArrays(
            classes=here,
            regions=regions[rows].astype(np.int32),
            rounds=np.full(here.shape, MANIFEST_ROUND, dtype=np.int32),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for spill in self._spills:
            spill.close()


class LabelCounts:
    """Labelled pixels, and distinct regions, by class id."""

    def __init__(self, num_classes: int) -> None:
        self._pixels = np.zeros(num_classes, dtype=np.int64)
        self._pairs: set[int] = set()

    def add(self, classes: NDArray[np.uint8], regions: NDArray[np.int32]) -> None:
        """Count some rows."""
        known = classes != IGNORE_INDEX
        ids = classes[known]
        self._pixels += np.bincount(ids, minlength=self._pixels.size)
        self._pairs.update(np.unique(regions[known].astype(np.int64) * 256 + ids).tolist())

    def by_class(self, class_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Pixels and regions of these classes."""
        regions = Counter(pair % 256 for pair in self._pairs)
        return [int(self._pixels[i]) for i in class_ids], [regions[i] for i in class_ids]
