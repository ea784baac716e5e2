"""Judge whole scenes chunk by chunk, in this process or in several; the result is the same."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.data.sources import SceneCrops, SceneOpener
from geohsal.errors import GeohsalError, ModelError
from geohsal.geo.scene import SceneMaps
from geohsal.query.cell_features import sum_features
from geohsal.query.cell_sums import CellSums
from geohsal.training.inference import Predictor
from geohsal.training.judgement import RefineState
from geohsal.training.maps import ChunkMaps, SceneJudge, judge_window, pool_mask, scene_chunks
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.context import pick_device
from geohsal.workflows.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePass:
    """What every process needs to judge chunks; small enough to send.

    `config` gives the rules of refinement and query, the model folder everything learnt.
    `blocked` marks, by scene, pixels that are not asked about again.
    """

    model_dir: Path
    opener: SceneOpener
    config: Config
    device: str
    blocked: Mapping[str, NDArray[np.bool_]]


class _Worker:
    """An open model with open scenes, one per process."""

    def __init__(self, plan: ScenePass, model: Model) -> None:
        self._plan = plan
        self._model = model
        self._predictor: Predictor = model.predictor(pick_device(plan.device))
        self._scenes: dict[str, SceneCrops] = {}

    @property
    def predictor(self) -> Predictor:
        return self._predictor

    def close(self) -> None:
        for scene in self._scenes.values():
            scene.close()
        self._scenes.clear()

    def judge(self, scene_id: str, window: Window) -> tuple[ChunkMaps, CellSums]:
        if scene_id not in self._scenes:
            self.close()
            self._scenes[scene_id] = self._plan.opener(scene_id)
        scene = self._scenes[scene_id]
        maps, output, inner = judge_window(
            self._predictor,
            scene,
            window,
            state=statistics_of(self._model, self._plan.model_dir),
            config=self._plan.config,
        )
        features = output.features[(slice(None), *inner)]
        sums = cell_sums(
            scene_id, scene.scene.shape, self._plan.config, self._model, features=len(features)
        )
        pool = pool_mask(scene, window, maps.state, self._plan.blocked.get(scene_id))
        row, col = int(window.row_off), int(window.col_off)
        side = self._plan.config.query.region_px
        sums.add_features(
            row, col, sums=sum_features(features, pool, row0=row, col0=col, region_px=side)
        )
        return maps, sums


def statistics_of(model: Model, folder: Path) -> RefineState:
    """The model's statistics.

    Raises:
        ModelError: it has none.
    """
    if model.refine_state is None:
        raise ModelError(f"{folder}: holds no class statistics; train the round again")
    return model.refine_state


def cell_sums(
    scene_id: str, shape: tuple[int, int], config: Config, model: Model, *, features: int
) -> CellSums:
    """Empty sums over the region cells of a scene."""
    return CellSums(
        scene_id,
        shape,
        region_px=config.query.region_px,
        num_classes=len(model.classes),
        num_features=features,
    )


_worker: _Worker | None = None


def _start(plan: ScenePass) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(plan, load_model(plan.model_dir))


def _run(scene_id: str, window: Window) -> tuple[ChunkMaps, CellSums]:
    assert _worker is not None, "the pool's initializer has not run"
    return _worker.judge(scene_id, window)


class SceneJudges:
    """Judges scenes one after the other; chunks of a scene may run in several processes."""

    def __init__(self, plan: ScenePass, model: Model, *, pool: ProcessPoolExecutor | None) -> None:
        self._plan = plan
        self._model = model
        self._pool = pool
        self._local = _Worker(plan, model)

    def chunks(self, height: int, width: int) -> list[Window]:
        """The chunks of a scene of this size."""
        return scene_chunks(self._local.predictor, height, width)

    def judge(
        self,
        scene_id: str,
        shape: tuple[int, int],
        *,
        seed: int,
        class_weight: NDArray[np.float64],
        progress: Progress,
    ) -> tuple[SceneMaps, CellSums]:
        """Maps of a scene, and sums over its region cells that hold the pool's mean features."""
        judge = SceneJudge(shape)
        total: CellSums | None = None
        for maps, sums in self._results(scene_id, self.chunks(*shape)):
            judge.add(maps)
            total = sums if total is None else total.merge(sums)
            progress.advance()
        assert total is not None, "a scene without chunks"
        config = self._plan.config
        scene_maps = judge.finish(
            config=config, scene_id=scene_id, seed=seed, class_weight=class_weight
        )
        return scene_maps, total

    def _results(
        self, scene_id: str, windows: list[Window]
    ) -> Iterator[tuple[ChunkMaps, CellSums]]:
        if self._pool is None:
            for window in windows:
                yield self._local.judge(scene_id, window)
            return
        try:
            yield from self._pool.map(_run, [scene_id] * len(windows), windows)
        except BrokenProcessPool:
            raise GeohsalError(
                f"scene {scene_id}: a worker process died (out of memory?); run the same command "
                "again to go on, with fewer --workers"
            ) from None

    def close(self) -> None:
        """Close open files."""
        self._local.close()


@contextmanager
def scene_judges(plan: ScenePass, model: Model, *, workers: int) -> Iterator[SceneJudges]:
    """Judges that work here (`workers` 1) or in that many processes."""
    pool = None
    if workers > 1:
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start, initargs=(plan,)
        )
    judges = SceneJudges(plan, model, pool=pool)
    try:
        yield judges
    finally:
        judges.close()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
