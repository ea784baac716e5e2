"""Write the maps of a round window by window; each file appears whole, when the last one is in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from geohsal.geo.scene import ClassInfo, Scene, SceneMaps
from geohsal.geo.states import IGNORE_INDEX, STATE_COLORS, PixelState
from geohsal.io.atomic import write_text
from geohsal.io.cog import open_cog
from geohsal.io.qgis_raster import palette_qml
from geohsal.io.run import RasterKind, Round


class MapWriter:
    """Open rasters of one scene: class, confidence, error and state."""

    def __init__(self, targets: Mapping[RasterKind, DatasetWriter]) -> None:
        self._targets = targets

    def write(self, window: Window, maps: SceneMaps) -> None:
        """Write the maps of a window; every pixel of the scene must be in one."""
        valid = maps.state != PixelState.NODATA
        self._targets["class"].write(np.stack([maps.refined, maps.teacher]), window=window)
        self._targets["state"].write(maps.state[None], window=window)
        for kind, values in _quantities(maps):
            known = np.where(valid, values, np.float32(np.nan)).astype(np.float32)
            self._targets[kind].write(known[None], window=window)


def _quantities(maps: SceneMaps) -> Iterator[tuple[RasterKind, NDArray[np.float32]]]:
    yield "confidence", maps.confidence
    yield "error", maps.error


@contextmanager
def open_maps(round_: Round, scene: Scene, classes: Sequence[ClassInfo]) -> Iterator[MapWriter]:
    """Class, confidence, error and state of a scene as COGs, in place if the block succeeds.

    Raises:
        DataError: a raster cannot be written.
    """
    kinds = _kinds(classes)
    with ExitStack() as stack:
        yield MapWriter(
            {
                kind: stack.enter_context(
                    open_cog(round_.raster(scene.scene_id, kind), scene=scene, **options)
                )
                for kind, options in kinds.items()
            }
        )
    write_text(round_.raster(scene.scene_id, "class").with_suffix(".qml"), palette_qml(classes))


def _kinds(classes: Sequence[ClassInfo]) -> Mapping[RasterKind, dict[str, Any]]:
    return {
        "class": class_raster(classes, bands=("refined", "teacher")),
        "state": state_raster(),
        "confidence": quantity_raster(("confidence",)),
        "error": quantity_raster(("error",)),
    }


def class_raster(classes: Sequence[ClassInfo], *, bands: Sequence[str]) -> dict[str, Any]:
    """What `open_cog` is told of class ids: 255 is no class, each has its name and colour."""
    return {
        "dtype": np.uint8,
        "nodata": IGNORE_INDEX,
        "band_names": tuple(bands),
        "colors": {info.class_id: info.color for info in classes},
        "categories": {info.class_id: info.name for info in classes},
    }


def state_raster() -> dict[str, Any]:
    """What `open_cog` is told of `PixelState` codes."""
    return {
        "dtype": np.uint8,
        "nodata": int(PixelState.NODATA),
        "band_names": ("state",),
        "colors": {int(code): color for code, color in STATE_COLORS.items()},
        "categories": {int(code): code.name for code in PixelState},
    }


def quantity_raster(bands: Sequence[str]) -> dict[str, Any]:
    """What `open_cog` is told of bands of numbers: NaN without data, averaged in overviews."""
    return {
        "dtype": np.float32,
        "nodata": float("nan"),
        "band_names": tuple(bands),
        "overview_resampling": "average",
    }
