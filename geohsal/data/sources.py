"""Scenes of a run opened for reading crops: image, validity, labels and split of any window."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import RasterError
from geohsal.geo.blocks import SplitTable, split_table
from geohsal.geo.scene import Scene, Tile
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.io.georeference import same_grid
from geohsal.io.label_store import LabelArrays, LabelReader, empty_labels, read_label_raster
from geohsal.io.manifest import Manifest, SceneSource
from geohsal.io.raster import SceneReader, open_scene

_Code = TypeVar("_Code", np.uint8, np.int32)

WHOLE_LABELS = 4_000_000
"""Scenes up to this many pixels keep their labels in memory (5 bytes a pixel)."""


class SceneCrops:
    """One open scene of a run; not shared between processes (GDAL handles are not)."""

    def __init__(self, reader: SceneReader, labels: Path | None, table: SplitTable) -> None:
        self._reader = reader
        self._labels_path = labels
        self._table = table
        self.scene: Scene = reader.scene
        self._whole: LabelArrays | None = None
        self._labels: LabelReader | None = None
        if labels is not None and self.scene.height * self.scene.width <= WHOLE_LABELS:
            self._whole = read_label_raster(labels)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw bands (band, row, col) and validity (row, col); outside the scene: 0 and False."""
        return self._reader.read_with_valid(window)

    def labels(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Classes (255 unlabelled) and region numbers (0 none)."""
        if self._labels_path is None:
            nothing = empty_labels((int(window.height), int(window.width)))
            return nothing.classes, nothing.regions
        if self._whole is None:
            if self._labels is None:  # opened with the first window: many passes ask for none
                self._labels = LabelReader(self._labels_path)
            found = self._labels.read(window)
            return found.classes, found.regions
        return (
            _cut(self._whole.classes, window, fill=IGNORE_INDEX),
            _cut(self._whole.regions, window, fill=0),
        )

    def splits(self, window: Window) -> NDArray[np.uint8]:
        """`Split` codes; 0 in buffers and outside the scene."""
        return self._table.read(window)

    def trainable(self, window: Window) -> NDArray[np.bool_]:
        """True in train cores outside buffers, valid or not."""
        train: NDArray[np.bool_] = self.splits(window) == Split.TRAIN
        return train

    def close(self) -> None:
        """Close the scene's files."""
        self._reader.close()
        if self._labels is not None:
            self._labels.close()


def _cut(whole: NDArray[_Code], window: Window, *, fill: int) -> NDArray[_Code]:
    row, col = int(window.row_off), int(window.col_off)
    height, width = int(window.height), int(window.width)
    result = np.full((height, width), fill, dtype=whole.dtype)
    row0, row1 = max(row, 0), min(row + height, whole.shape[0])
    col0, col1 = max(col, 0), min(col + width, whole.shape[1])
    if row0 < row1 and col0 < col1:
        result[row0 - row : row1 - row, col0 - col : col1 - col] = whole[row0:row1, col0:col1]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOpener:
    """Opens scenes by id in whatever process asks; holds no open file, so it can be pickled.

    Scenes without an entry in `labels` are unlabelled. `grids` and `glances` (cheap fingerprints)
    say what the images were when the run was tiled.
    """

    sources: Mapping[str, SceneSource]
    bands: tuple[str, ...]
    max_pixels: int
    labels: Mapping[str, Path]
    tiles: Mapping[str, Sequence[Tile]]
    buffers: Mapping[str, int]
    grids: Mapping[str, Scene] = field(default_factory=dict)
    glances: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, scene_id: str) -> SceneCrops:
        """The open scene.

        Raises:
            RasterError: the image cannot be read, or is another than `grids` and `glances` say.
        """
        source = self.sources[scene_id]
        reader = open_scene(source, self.bands, max_pixels=self.max_pixels)
        tiled = self.grids.get(scene_id)
        found = reader.scene
        if tiled is not None and (not same_grid(found, tiled) or found.crs != tiled.crs):
            reader.close()
            raise RasterError(
                f"scene {scene_id!r}: {source.image}: its grid ({found.height} x "
                f"{found.width}) is not the one that this run was tiled on ({tiled.height} x "
                f"{tiled.width}, same CRS and transform); put the old image back, or "
                "tile into a new folder"
            )
        known = self.glances.get(scene_id)
        if known and reader.glance() != known:
            reader.close()
            raise RasterError(
                f"scene {scene_id!r}: {source.image}: is not the image that this run was tiled "
                "on; put the old image back, or tile into a new folder"
            )
        table = split_table(self.tiles[scene_id], buffer_px=self.buffers[scene_id])
        return SceneCrops(reader, self.labels.get(scene_id), table)


def scene_opener(
    manifest: Manifest,
    tiles: Sequence[Tile],
    *,
    labels: Callable[[str], Path],
    max_pixels: int,
    grids: Mapping[str, Scene],
    glances: Mapping[str, str],
) -> SceneOpener:
    """An opener for all scenes of a manifest with the run's tiles and label rasters."""
    by_scene: dict[str, list[Tile]] = {source.scene_id: [] for source in manifest.scenes}
    for tile in tiles:
        by_scene[tile.scene_id].append(tile)
    return SceneOpener(
        sources={source.scene_id: source for source in manifest.scenes},
        bands=manifest.bands,
        max_pixels=max_pixels,
        grids=grids,
        glances=glances,
        labels={source.scene_id: labels(source.scene_id) for source in manifest.scenes},
        tiles=by_scene,
        buffers={
            source.scene_id: manifest.blocks.buffer_px if source.split == "blocks" else 0
            for source in manifest.scenes
        },
    )
