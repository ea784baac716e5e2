"""Judge chunks of scenes in whatever process: what a query computes before anything is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.data.dataset import seed_of
from geohsal.data.sources import SceneCrops, SceneOpener
from geohsal.errors import ModelError
from geohsal.geo.states import PixelState
from geohsal.models.mc_dropout import dropout_masks
from geohsal.query.acquisition import acquisition
from geohsal.query.feature_sums import sum_features, sum_gradients
from geohsal.training.inference import Predictor
from geohsal.training.judgement import RefineState
from geohsal.training.maps import ChunkMaps, judge_window, pool_mask
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.asked import Blocked
from geohsal.workflows.chunk_parts import ChunkSums, pack_chunk
from geohsal.workflows.context import pick_device
from geohsal.workflows.engine import Chunk
from geohsal.workflows.region_units import atoms_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePass:
    """What every process needs to judge chunks; small enough to send.

    `config` gives the rules of refinement and query, the model folder everything learnt.
    `blocked` marks pixels that are not asked about again; `superpixels` names, by scene, the
    raster that says where they lie (empty for other units).
    """

    model_dir: Path
    opener: SceneOpener
    config: Config
    device: str
    blocked: Blocked
    superpixels: Mapping[str, Path]

    def open(self) -> "SceneWorker":
        """An open model with open scenes.

        Raises:
            ModelError: the model folder is missing or damaged.
            RequestError: there is no such device.
        """
        return SceneWorker(self, load_model(self.model_dir))


class SceneWorker:
    """An open model with the scene that it is at, one per process."""

    def __init__(self, plan: ScenePass, model: Model) -> None:
        self._plan = plan
        self._model = model
        self._predictor: Predictor = model.predictor(pick_device(plan.device))
        self._scenes: dict[str, SceneCrops] = {}
        self._acquisition = acquisition(plan.config.query.strategy)
        self._needs = self._acquisition.needs
        self._seed = seed_of(plan.config.seed, "acquisition")
        self._dropout = self._masks() if "information" in self._needs else None

    def close(self) -> None:
        """Close open files."""
        for scene in self._scenes.values():
            scene.close()
        self._scenes.clear()

    def run(self, chunk: Chunk) -> Mapping[str, NDArray[Any]]:
        """The arrays of a chunk, see `chunk_parts`."""
        if chunk.scene_id not in self._scenes:
            self.close()
            self._scenes[chunk.scene_id] = self._plan.opener(chunk.scene_id)
        scene = self._scenes[chunk.scene_id]
        judged = [self._judge(scene, window) for window in chunk.windows]
        return pack_chunk(
            [maps for maps, _ in judged],
            [sums for _, sums in judged],
            doubts=self._acquisition.doubts,
        )

    def _judge(self, scene: SceneCrops, window: Window) -> tuple[ChunkMaps, ChunkSums]:
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
        blocked = self._plan.blocked.window(scene_id, window)
        pool = pool_mask(scene, window, maps.state, blocked)
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
