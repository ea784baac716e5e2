"""The COGs of `geohsal predict`, put together from the parts of a raster."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import RequestError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.states import PixelState
from geohsal.io.cog import open_cog
from geohsal.io.gdal import GDAL_ERRORS, quiet
from geohsal.workflows.map_writer import class_raster, quantity_raster, state_raster

KINDS = ("class", "probabilities", "confidence", "error", "state")
"""The class map is renamed into place last: with it, the raster is done."""

Windowed = tuple[Window, Mapping[str, NDArray[Any]]]
"""A window and its arrays by kind, as `predict_work.PredictWorker.run` gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFolder:
    """Where the maps of one model go."""

    out: Path
    model_hash: str
    classes: Sequence[ClassInfo]

    def path(self, name: str, kind: str) -> Path:
        """The file of a raster's map."""
        return self.out / f"{name}_{kind}.tif"

    def is_done(self, name: str, *, overwrite: bool) -> bool:
        """Whether all maps of this model are there.

        Raises:
            RequestError: they are there from another model, and may not be replaced.
        """
        paths = [self.path(name, kind) for kind in KINDS]
        if not all(path.exists() for path in paths):
            return False
        try:
            with quiet(), rasterio.open(paths[0]) as source:
                found = source.tags().get("GEOHSAL_MODEL")
        except GDAL_ERRORS:
            found = None
        if found == self.model_hash:
            return True
        if not overwrite:
            raise RequestError(
                f"{paths[0]}: is a map of another model; use --overwrite or another folder"
            )
        return False

    def unpacked_bytes(self, scene: Scene) -> int:
        """Bytes that the maps of a scene hold with their overviews, before they are packed."""
        per_pixel = 1 + 1 + 4 + 4 + 4 * len(self.classes)  # as `KINDS`, but probabilities last
        return scene.height * scene.width * per_pixel * 4 // 3

    def write(self, name: str, scene: Scene, windows: Iterable[Windowed]) -> dict[str, int]:
        """Write the maps of a raster, whole or not at all; gives back valid pixels by class.

        Raises:
            DataError: the folder cannot be written or the disk is full.
        """
        counts = np.zeros(len(self.classes), dtype=np.int64)
        with ExitStack() as stack:
            targets = {kind: stack.enter_context(self._open(name, kind, scene)) for kind in KINDS}
            for window, arrays in windows:
                valid = arrays["state"] != PixelState.NODATA
                _put(targets, window, arrays, valid)
                counts += np.bincount(arrays["class"][valid], minlength=len(counts))
        names = [info.name for info in self.classes]
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def _open(self, name: str, kind: str, scene: Scene) -> Any:
        options: dict[str, Any] = {
            "class": class_raster(self.classes, bands=["class"]),
            "state": state_raster(),
            "probabilities": quantity_raster([info.name for info in self.classes]),
            "confidence": quantity_raster(["confidence"]),
            "error": quantity_raster(["error"]),
        }[kind]
        return open_cog(
            self.path(name, kind), scene=scene, tags={"GEOHSAL_MODEL": self.model_hash}, **options
        )


def _put(
    targets: Mapping[str, Any],
    window: Window,
    arrays: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
) -> None:
    for kind in ("class", "state"):
        targets[kind].write(arrays[kind], 1, window=window)
    for kind in ("confidence", "error"):
        targets[kind].write(np.where(valid, arrays[kind], np.float32(np.nan)), 1, window=window)
    probabilities = np.where(valid, arrays["probabilities"], np.float32(np.nan))
    targets["probabilities"].write(probabilities, window=window)
