"""The rasters of a round: written as COGs under the round folder, read back as maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.sources import SceneCrops
from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo, Scene, SceneMaps
from geohsal.geo.states import IGNORE_INDEX, STATE_COLORS, PixelState
from geohsal.io.atomic import write_text
from geohsal.io.cog import open_cog, write_cog
from geohsal.io.gdal import quiet
from geohsal.io.qgis_raster import palette_qml
from geohsal.io.run import RasterKind, Round

VIEW_SAMPLE = 1_000_000
"""Pixels that the stretch of the view is measured on, about."""

COMPOSITES = (
    ("red", "green", "blue"),
    ("nir", "red", "green"),
    ("swir1", "nir", "red"),
    ("swir", "nir", "red"),
)
"""Bands drawn as red, green and blue: the first line of which a scene has all."""


def write_maps(round_: Round, scene: Scene, maps: SceneMaps, classes: Sequence[ClassInfo]) -> None:
    """Write class, confidence, error and state of a scene."""
    colors = {c.class_id: c.color for c in classes}
    names = {c.class_id: c.name for c in classes}
    valid = maps.state != PixelState.NODATA
    write_cog(
        round_.raster(scene.scene_id, "class"),
        np.stack([maps.refined, maps.teacher]),
        scene=scene,
        nodata=IGNORE_INDEX,
        band_names=("refined", "teacher"),
        colors=colors,
        categories=names,
    )
    write_text(round_.raster(scene.scene_id, "class").with_suffix(".qml"), palette_qml(classes))
    write_cog(
        round_.raster(scene.scene_id, "state"),
        maps.state,
        scene=scene,
        nodata=int(PixelState.NODATA),
        band_names=("state",),
        colors={int(code): color for code, color in STATE_COLORS.items()},
        categories={int(code): code.name for code in PixelState},
    )
    quantities: tuple[tuple[RasterKind, NDArray[np.float32]], ...] = (
        ("confidence", maps.confidence),
        ("error", maps.error),
    )
    for kind, values in quantities:
        write_quantity(round_.raster(scene.scene_id, kind), values, valid, scene=scene, name=kind)


def write_quantity(
    path: Path,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    *,
    scene: Scene,
    name: str,
) -> None:
    """Write one float map in [0, 1] with NaN as nodata."""
    write_cog(
        path,
        np.where(valid, values, np.float32(np.nan)).astype(np.float32),
        scene=scene,
        nodata=float("nan"),
        band_names=(name,),
        overview_resampling="average",
    )


def read_maps(round_: Round, scene: Scene) -> SceneMaps:
    """The maps of a scene as they were written; what has no raster is 0 (255 for classes).

    Raises:
        DataError: a raster of the round is missing or damaged.
    """
    classes = _read(round_, scene, "class")
    zeros = np.zeros(scene.shape, dtype=np.float32)
    return SceneMaps(
        refined=classes[0],
        teacher=classes[1],
        plar=np.full(scene.shape, IGNORE_INDEX, dtype=np.uint8),
        state=_read(round_, scene, "state")[0],
        confidence=np.nan_to_num(_read(round_, scene, "confidence")[0]),
        error=np.nan_to_num(_read(round_, scene, "error")[0]),
        margin=zeros,
        undecided=zeros,
    )


def _read(
    round_: Round, scene: Scene, kind: RasterKind, window: Window | None = None
) -> NDArray[Any]:
    path = round_.raster(scene.scene_id, kind)
    try:
        with quiet(), rasterio.open(path) as source:
            found: NDArray[Any] = source.read(window=window)
    except rasterio.RasterioIOError as error:
        raise DataError(
            f"{path}: cannot be read ({error}); run geohsal query --overwrite"
        ) from None
    return found


def read_states(round_: Round, scene: Scene, window: Window) -> NDArray[np.uint8]:
    """PixelState codes of a window inside the scene."""
    states: NDArray[np.uint8] = _read(round_, scene, "state", window)[0]
    return states


def read_teacher(round_: Round, scene: Scene, window: Window) -> NDArray[np.uint8]:
    """The teacher's classes of a window inside the scene."""
    classes: NDArray[np.uint8] = _read(round_, scene, "class", window)[1]
    return classes


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
        for row in range(0, scene.height, 512):
            window = Window(0, row, scene.width, min(512, scene.height - row))
            image, valid = source.read(window)
            scaled = (image[picked] - low[:, None, None]) / (high - low)[:, None, None]
            levels = np.clip(np.rint(1 + 254 * scaled), 1, 255)
            target.write(np.where(valid, levels, 0).astype(np.uint8), window=window)


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
