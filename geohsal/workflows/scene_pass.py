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
from geohsal.data.dataset import seed_of
from geohsal.data.sources import SceneCrops, SceneOpener
from geohsal.errors import GeohsalError, ModelError
from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import PixelState
from geohsal.models.mc_dropout import dropout_masks
from geohsal.query.acquisition import acquisition
from geohsal.query.cell_sums import CellSums
from geohsal.query.feature_sums import FeatureSums, merge_sums, sum_features, sum_gradients
from geohsal.query.layout import Layout
from geohsal.training.inference import Predictor
from geohsal.training.judgement import RefineState
from geohsal.training.maps import ChunkMaps, SceneJudge, judge_window, pool_mask, scene_chunks
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.context import pick_device
from geohsal.workflows.progress import Progress
from geohsal.workflows.region_units import atoms_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePass:
    """What every process needs to judge chunks; small enough to send.

    `config` gives the rules of refinement and query, the model folder everything learnt.
    `blocked` marks, by scene, pixels that are not asked about again; `superpixels` names, by
    scene, the raster that says where they lie (empty for other units).
    """

    model_dir: Path
    opener: SceneOpener
    config: Config
    device: str
    blocked: Mapping[str, NDArray[np.bool_]]
    superpixels: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSums:
    """Sums over the pool pixels of a chunk by atom, and over its labelled train pixels by region.

    `embeddings` and `labelled` are None unless the acquisition needs them.
    """

    features: FeatureSums
    embeddings: FeatureSums | None
    labelled: FeatureSums | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneJudgement:
    """A scene judged whole.

    `sums` of its regions hold the features and still lack what the maps say. `labelled` are the
    mean features (labelled region, feature) of what is labelled; no rows unless needed.
    """

    maps: SceneMaps
    sums: CellSums
    labelled: NDArray[np.float32]


class _Worker:
    """An open model with open scenes, one per process."""

    def __init__(self, plan: ScenePass, model: Model) -> None:
        self._plan = plan
        self._model = model
        self._predictor: Predictor = model.predictor(pick_device(plan.device))
        self._scenes: dict[str, SceneCrops] = {}
        self._needs = acquisition(plan.config.query.strategy).needs
        self._seed = seed_of(plan.config.seed, "acquisition")
        self._dropout = self._masks() if "information" in self._needs else None

    @property
    def predictor(self) -> Predictor:
        return self._predictor

    def close(self) -> None:
        for scene in self._scenes.values():
            scene.close()
        self._scenes.clear()

    def judge(self, scene_id: str, window: Window) -> tuple[ChunkMaps, ChunkSums]:
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
            dropout=self._dropout,
        )
        inside = (slice(None), *inner)
        return maps, self._sums(
            scene, window, maps, output.features[inside], output.probabilities[inside]
        )

    def _masks(self) -> torch.Tensor:
        config = self._plan.config.query
        channels = self._predictor.head.in_channels
        return dropout_masks(config.mc_passes, channels, share=config.mc_dropout, seed=self._seed)

    def _sums(
        self,
        scene: SceneCrops,
        window: Window,
        maps: ChunkMaps,
        features: torch.Tensor,
        probabilities: torch.Tensor,
    ) -> ChunkSums:
        scene_id = scene.scene.scene_id
        pool = pool_mask(scene, window, maps.state, self._plan.blocked.get(scene_id))
        atoms = atoms_of(
            self._plan.config.query,
            window,
            scene_width=scene.scene.width,
            superpixels=self._plan.superpixels.get(scene_id),
        )
        pool &= atoms >= 0
        embeddings, labelled = None, None
        if "embeddings" in self._needs:
            embeddings = sum_gradients(features, probabilities, atoms, pool, seed=self._seed)
        if "labelled" in self._needs:
            known = (maps.state == PixelState.LABELLED) & scene.trainable(window)
            labelled = sum_features(features, scene.labels(window)[1], known)
        return ChunkSums(
            features=sum_features(features, atoms, pool), embeddings=embeddings, labelled=labelled
        )


def statistics_of(model: Model, folder: Path) -> RefineState:
    """The model's statistics.

    Raises:
        ModelError: it has none.
    """
    if model.refine_state is None:
        raise ModelError(f"{folder}: holds no class statistics; train the round again")
    return model.refine_state


_worker: _Worker | None = None


def _start(plan: ScenePass) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(plan, load_model(plan.model_dir))


def _run(scene_id: str, window: Window) -> tuple[ChunkMaps, ChunkSums]:
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
        layout: Layout,
        *,
        seed: int,
        class_weight: NDArray[np.float64],
        progress: Progress,
    ) -> SceneJudgement:
        """Maps of a scene, and sums over its regions that hold the pool's features."""
        judge = SceneJudge(layout.shape)
        total: CellSums | None = None
        labelled: list[FeatureSums] = []
        for maps, sums in self._results(scene_id, self.chunks(*layout.shape)):
            judge.add(maps)
            total = total or self._empty(scene_id, layout, sums)
            total.add_features(sums.features, sums.embeddings)
            labelled += [] if sums.labelled is None else [sums.labelled]
            progress.advance()
        assert total is not None, "a scene without chunks"
        config = self._plan.config
        scene_maps = judge.finish(
            config=config, scene_id=scene_id, seed=seed, class_weight=class_weight
        )
        known = merge_sums(labelled).means if labelled else np.zeros((0, 0), dtype=np.float32)
        return SceneJudgement(maps=scene_maps, sums=total, labelled=known)

    def _empty(self, scene_id: str, layout: Layout, sums: ChunkSums) -> CellSums:
        return CellSums(
            scene_id,
            layout,
            num_classes=len(self._model.classes),
            num_features=len(sums.features.sums),
            num_embedding=0 if sums.embeddings is None else len(sums.embeddings.sums),
        )

    def _results(
        self, scene_id: str, windows: list[Window]
    ) -> Iterator[tuple[ChunkMaps, ChunkSums]]:
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
