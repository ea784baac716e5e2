"""A run opened for work: its manifest, settings, tiles, scenes and how to read them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from geohsal.config import Config
from geohsal.data.dataset import BandScale, TrainArea
from geohsal.data.sources import SceneCrops, SceneOpener, scene_opener
from geohsal.errors import RequestError
from geohsal.geo.scene import Scene, Tile
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.run import Run, open_run
from geohsal.io.run_tables import TileRecord, load_tiles, read_config, read_summary


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Everything about a run that does not change between commands."""

    run: Run
    manifest: Manifest
    config: Config
    record: TileRecord
    tiles: dict[str, list[Tile]]
    opener: SceneOpener

    @property
    def scale(self) -> BandScale:
        """Band statistics of the valid train pixels."""
        return BandScale(
            mean=tuple(band.mean for band in self.record.bands),
            std=tuple(band.std for band in self.record.bands),
        )

    @property
    def scenes(self) -> dict[str, Scene]:
        """Scenes in the manifest's order."""
        return {scene_id: record.scene for scene_id, record in self.record.scenes.items()}

    def scenes_with(self, split: str) -> list[str]:
        """Ids of the scenes that have tiles of a split, in the manifest's order."""
        return [
            scene_id
            for scene_id in self.record.scenes
            if any(tile.split == split for tile in self.tiles.get(scene_id, []))
        ]

    def train_areas(self) -> list[TrainArea]:
        """Train tiles with valid pixels: where unlabelled crops come from."""
        return [
            TrainArea(
                scene_id=tile.scene_id,
                row=int(tile.core.row_off),
                col=int(tile.core.col_off),
                height=int(tile.core.height),
                width=int(tile.core.width),
                weight=tile.valid_share * tile.core.height * tile.core.width,
            )
            for tiles in self.tiles.values()
            for tile in tiles
            if tile.split == "train" and tile.valid_share > 0
        ]

    @contextmanager
    def open(self, scene_id: str) -> Iterator[SceneCrops]:
        """An open scene, closed at the end of the block."""
        scene = self.opener(scene_id)
        try:
            yield scene
        finally:
            scene.close()


def open_context(run_dir: Path, *, config: Config | None = None) -> RunContext:
    """A run with its own settings, or with others for what comes.

    Raises:
        RunError: the folder is not a tiled run.
        RequestError: `config` would cut other tiles than the run has.
    """
    run = open_run(run_dir)
    manifest = load_manifest(run.manifest)
    own = read_config(run)
    if config is not None and config.tile != own.tile:
        raise RequestError(
            f"{run_dir}: the settings' tile section differs from the one that this run was tiled "
            "with; keep it, or tile into a new folder"
        )
    if config is not None and config.query.region_px != own.query.region_px:
        raise RequestError(
            f"{run_dir}: query.region_px is {own.query.region_px} in this run and cannot change: "
            "region ids would; tile into a new folder"
        )
    chosen = config or own
    tiles = load_tiles(run)
    record = read_summary(run)
    all_tiles: Sequence[Tile] = [tile for group in tiles.values() for tile in group]
    return RunContext(
        run=run,
        manifest=manifest,
        config=chosen,
        record=record,
        tiles=tiles,
        opener=scene_opener(
            manifest,
            all_tiles,
            labels=Run(path=run.path.absolute()).labels,  # workers may stand in another folder
            max_pixels=chosen.tile.max_pixels,
            grids={scene_id: entry.scene for scene_id, entry in record.scenes.items()},
            glances={scene_id: entry.glance for scene_id, entry in record.scenes.items()},
        ),
    )


def pick_device(name: str) -> torch.device:
    """The device of `--device`: auto, cpu, cuda or cuda:N.

    Raises:
        RequestError: the name is unknown, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"--device {name}: write auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"--device {name}: write auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(
            f"--device {name}: this machine has no such CUDA device; use auto or cpu"
        )
    return device
