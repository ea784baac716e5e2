"""The rasters of a round: written as COGs under the round folder, read back in windows."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geohsal.data.sources import SceneCrops
from geohsal.errors import DataError
from geohsal.geo.scene import Scene, SceneMaps
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.cog import open_cog
from geohsal.io.gdal import quiet
from geohsal.io.run import RasterKind, Round

VIEW_SAMPLE = 1_000_000
"""Pixels that the stretch of the view is measured on, about."""

OPEN_FILES = 32
"""Rasters that stay open while windows are read."""

COMPOSITES = (
    ("red", "green", "blue"),
    ("nir", "red", "green"),
    ("swir1", "nir", "red"),
    ("swir", "nir", "red"),
)
"""Bands drawn as red, green and blue: the first line of which a scene has all."""


class RoundRasters:
    """The rasters of a round, open for reading windows until it is closed.

    Only the files that were read last stay open, so a round may have any number of scenes.
    """

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._open: OrderedDict[Path, DatasetReader] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        while self._open:
            self._open.popitem()[1].close()

    def maps(self, scene_id: str, window: Window) -> SceneMaps:
        """A window as it was written; what has no raster is 0 (255 for classes).

        Raises:
            DataError: a raster of the round is missing or damaged.
        """
        refined, teacher = self._read(scene_id, "class", window)
        zeros = np.zeros(refined.shape, dtype=np.float32)
        return SceneMaps(
            refined=refined,
            teacher=teacher,
            plar=np.full(refined.shape, IGNORE_INDEX, dtype=np.uint8),
            state=self.states(scene_id, window),
            confidence=np.nan_to_num(self._read(scene_id, "confidence", window)[0]),
            error=np.nan_to_num(self._read(scene_id, "error", window)[0]),
            margin=zeros,
            undecided=zeros,
        )

    def states(self, scene_id: str, window: Window) -> NDArray[np.uint8]:
        """PixelState codes of a window inside the scene."""
        states: NDArray[np.uint8] = self._read(scene_id, "state", window)[0]
        return states

    def teacher(self, scene_id: str, window: Window) -> NDArray[np.uint8]:
        """The teacher's classes of a window inside the scene."""
        classes: NDArray[np.uint8] = self._read(scene_id, "class", window)[1]
        return classes

    def _read(self, scene_id: str, kind: RasterKind, window: Window) -> NDArray[Any]:
        path = self._round.raster(scene_id, kind)
        try:
            found: NDArray[Any] = self._source(path).read(window=window)
        except rasterio.RasterioIOError as error:
            raise DataError(
                f"{path}: cannot be read ({error}); run geohsal query --overwrite"
            ) from None
        return found

    def _source(self, path: Path) -> DatasetReader:
        if path not in self._open:
            if len(self._open) == OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            with quiet():
                self._open[path] = rasterio.open(path)
        self._open.move_to_end(path)
        return self._open[path]


def read_states(round_: Round, scene: Scene, window: Window) -> NDArray[np.uint8]:
    """PixelState codes of a window inside the scene.

    Raises:
        DataError: the raster is missing or damaged.
    """
    with RoundRasters(round_) as rasters:
        return rasters.states(scene.scene_id, window)


def read_teacher(round_: Round, scene: Scene, window: Window) -> NDArray[np.uint8]:
    """The teacher's classes of a window inside the scene.

    Raises:
        DataError: the raster is missing or damaged.
    """
    with RoundRasters(round_) as rasters:
        return rasters.teacher(scene.scene_id, window)


def write_view(path: Path, source: SceneCrops) -> None:
    """Write the 8-bit picture of a scene: 2-98 % stretch per band, 0 (nodata) where invalid."""
    scene = source.scene
    picked = view_bands(scene.bands)
    low, high = _stretch(source, picked)
    with open_cog(
        path,
        scene=scene,
        dtype=np.uint8,
        nodata=0,
        band_names=[scene.bands[band] for band in picked],
        overview_resampling="average",
    ) as target:
        for window in _strips(scene):
            image, valid = source.read(window)
            scaled = (image[picked] - low[:, None, None]) / (high - low)[:, None, None]
            levels = np.clip(np.rint(1 + 254 * scaled), 1, 255)
            target.write(np.where(valid, levels, 0).astype(np.uint8), window=window)


def _strips(scene: Scene) -> Iterator[Window]:
    """Windows of whole blocks of a raster, of bounded size however wide the scene is."""
    for row in range(0, scene.height, 512):
        for col in range(0, scene.width, 2048):
            yield Window(col, row, min(2048, scene.width - col), min(512, scene.height - row))


def view_bands(bands: Sequence[str]) -> list[int]:
    """Positions of the bands to draw: natural or false colour by name, else the first three.

    Fewer than three bands make a grey picture of the first.
    """
    names = [band.lower() for band in bands]
    for composite in COMPOSITES:
        if set(composite) <= set(names):
            return [names.index(name) for name in composite]
    return [0, 1, 2] if len(names) >= 3 else [0]


def _stretch(
    source: SceneCrops, picked: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """2nd and 98th percentile per picked band, of evenly spaced strips."""
    scene = source.scene
    rows = 64
    strips = max(1, min(scene.height // rows, VIEW_SAMPLE // max(1, rows * scene.width)))
    values: list[NDArray[np.float32]] = []
    for row in np.linspace(0, max(0, scene.height - rows), max(strips, 4)).astype(int):
        image, valid = source.read(Window(0, int(row), scene.width, min(rows, scene.height)))
        values.append(image[picked][:, valid])
    sample = np.concatenate(values, axis=1)
    if sample.shape[1] == 0:
        return np.zeros(len(picked), np.float32), np.ones(len(picked), np.float32)
    low, high = np.percentile(sample, [2, 98], axis=1).astype(np.float32)
    return low, np.where(high > low, high, low + 1).astype(np.float32)
