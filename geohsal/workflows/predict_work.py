"""What every process does for `geohsal predict`: judge windows, and keep what maps will show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.data.sources import SceneCrops, SceneOpener
from geohsal.errors import GeohsalError
from geohsal.training.maps import judge_window
from geohsal.training.model_io import load_model
from geohsal.workflows.context import pick_device
from geohsal.workflows.engine import Chunk
from geohsal.workflows.predict_merge import FAILURE
from geohsal.workflows.scene_pass import statistics_of

STAGE_VERSION = 1
"""Part of every chunk's id: raised when the same model gives other maps."""

CHUNK_UNITS = 1
"""Windows of a chunk: one is seconds of work, and its maps are tens of megabytes."""


def portable(config: Config) -> Config:
    """Settings without the choice of a kernel: all give the same, and not every machine has all."""
    return replace(config, plar=replace(config.plar, kernel="auto"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictWork:
    """What a process needs; see `engine.Work`."""

    model_dir: Path
    opener: SceneOpener
    device: str

    def open(self) -> "PredictWorker":
        """A worker with the model loaded.

        Raises:
            ModelError: the model is missing or damaged.
        """
        return PredictWorker(self)


class PredictWorker:
    """The model and the raster that was read last, open in one process.

    A raster that fails must not stop the others: its chunks say why instead.
    """

    def __init__(self, work: PredictWork) -> None:
        model = load_model(work.model_dir)
        self._config = portable(model.config)
        self._statistics = statistics_of(model, work.model_dir)
        self._predictor = model.predictor(pick_device(work.device))
        self._opener = work.opener
        self._scene: tuple[str, SceneCrops] | None = None
        self._failed: dict[str, str] = {}

    def run(self, chunk: Chunk) -> Mapping[str, NDArray[Any]]:
        """The maps of the one window of a chunk by kind, or why there are none.

        `class` and `state` codes, `confidence`, `error` are (row, col), `probabilities`
        (class, row, col).
        """
        (window,) = chunk.windows
        if chunk.scene_id not in self._failed:
            try:
                return self._maps(self._open(chunk.scene_id), window)
            except GeohsalError as error:
                self._failed[chunk.scene_id] = str(error)
        text = self._failed[chunk.scene_id].encode()
        return {FAILURE: np.frombuffer(text, dtype=np.uint8)}

    def close(self) -> None:
        """Close the raster."""
        if self._scene is not None:
            self._scene[1].close()
        self._scene = None

    def _open(self, scene_id: str) -> SceneCrops:
        if self._scene is None or self._scene[0] != scene_id:
            self.close()
            self._scene = scene_id, self._opener(scene_id)
        return self._scene[1]

    def _maps(self, scene: SceneCrops, window: Window) -> Mapping[str, NDArray[Any]]:
        maps, output, inner = judge_window(
            self._predictor, scene, window, state=self._statistics, config=self._config
        )
        return {
            "class": maps.teacher,
            "state": maps.state,
            "confidence": maps.confidence,
            "error": maps.error,
            "probabilities": output.probabilities[(slice(None), *inner)].cpu().numpy(),
        }
