"""Put the judged chunks of a scene together: caps, maps and regions, a window at a time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.sources import SceneCrops
from geohsal.geo.patches import pad_window, slices
from geohsal.geo.scene import Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.plan import Plan
from geohsal.io.run import Round
from geohsal.query.acquisition import acquisition
from geohsal.query.cell_sums import CellSums
from geohsal.query.feature_sums import FeatureSums, merge_sums
from geohsal.refine.correction_caps import correction_floor
from geohsal.training.maps import finish_maps, pool_mask
from geohsal.workflows.asked import Blocked
from geohsal.workflows.chunk_parts import ChunkSums, SceneParts
from geohsal.workflows.context import RunContext
from geohsal.workflows.map_writer import open_maps
from geohsal.workflows.pool import Tell
from geohsal.workflows.query_parts import ScenePart, kept_path, write_kept
from geohsal.workflows.region_units import atoms_of, layout_of
from geohsal.workflows.round_rasters import write_view


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRules:
    """What all scenes of a query have in common.

    `blocked` marks pixels that are not asked about, resting regions included; `class_weight` has
    one number per class; `superpixels` is as `region_units.superpixel_rasters` gives it.
    """

    context: RunContext
    blocked: Blocked
    seed: int
    class_weight: NDArray[np.float64]
    superpixels: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMerge:
    """Puts scenes together one by one; see `engine.run_each`.

    `parts` is the folder of the parts of `plan`, `command` what makes a damaged one anew. Rasters
    go to `target`, and beside them what the choice needs (`query_parts`) under the mark `unit`.
    """

    rules: MergeRules
    plan: Plan
    parts: Path
    command: str
    target: Round
    unit: str

    def __call__(self, scene: Scene, tell: Tell) -> None:
        """Write the rasters of a scene and sum up its regions.

        Memory is per window and per region; only superpixels are read whole, where their regions
        are laid out.

        Raises:
            PartsMissingError: a part is damaged.
            DataError: a raster cannot be written.
        """
        parts = SceneParts(self.plan, self.parts, scene.scene_id, command=self.command)
        context, merge = self.rules.context, _Merge(self.rules, scene, parts)
        kept = kept_path(self.target, scene.scene_id)
        kept.unlink(missing_ok=True)  # of the rasters before
        with context.open(scene.scene_id) as source:
            with open_maps(self.target, scene, context.manifest.classes) as writer:
                for window in parts.windows():
                    maps = merge.finish(window)
                    writer.write(window, maps)
                    merge.add(window, maps, source)
                    tell()
            write_view(self.target.raster(scene.scene_id, "view"), source)
        write_kept(kept, self.unit, merge.result())


class _Merge:
    """The sums of one scene under way."""

    def __init__(self, rules: MergeRules, scene: Scene, parts: SceneParts) -> None:
        config = rules.context.config
        self._rules = rules
        self._scene = scene
        self._parts = parts
        self._halo = acquisition(config.query.strategy).halo(config.query)
        self._floor = correction_floor(
            parts.corrections(),
            corrected_cap=config.plar.corrected_cap,
            flow_cap=config.plar.flow_cap,
        )
        self._states: Counter[str] = Counter()
        self._labelled: list[FeatureSums] = []
        self._sums = self._features()

    def _features(self) -> CellSums:
        total: CellSums | None = None
        for sums in self._parts.sums():
            total = total or self._empty(sums)
            total.add_features(sums.features, sums.embeddings)
            if sums.labelled is not None:
                self._labelled = [merge_sums([*self._labelled, sums.labelled])]
        assert total is not None, "a scene without chunks"
        return total

    def _empty(self, sums: ChunkSums) -> CellSums:
        scene_id = self._scene.scene_id
        return CellSums(
            scene_id,
            layout_of(self._rules.context, scene_id, self._rules.superpixels),
            num_classes=len(self._rules.context.manifest.classes),
            num_features=len(sums.features.sums),
            num_embedding=0 if sums.embeddings is None else len(sums.embeddings.sums),
        )

    def finish(self, window: Window) -> SceneMaps:
        """The maps of a window, as those of the whole scene would be there."""
        wide = pad_window(window, self._halo, self._scene)
        maps = finish_maps(
            self._parts.maps(wide),
            floor=self._floor,
            config=self._rules.context.config,
            scene_id=self._scene.scene_id,
            seed=self._rules.seed,
            class_weight=self._rules.class_weight,
        )
        if wide == window:
            return maps
        top, left = window.row_off - wide.row_off, window.col_off - wide.col_off
        return _cut(maps, slices(Window(left, top, window.width, window.height)))

    def add(self, window: Window, maps: SceneMaps, source: SceneCrops) -> None:
        """Add the maps of a window to the sums of the regions."""
        scene_id = self._scene.scene_id
        blocked = self._rules.blocked.window(scene_id, window)
        atoms = atoms_of(
            self._rules.context.config.query,
            window,
            scene_width=self._scene.width,
            superpixels=self._rules.superpixels.get(scene_id),
        )
        self._sums.add(atoms, pool_mask(source, window, maps.state, blocked), maps=maps)
        counts = np.bincount(maps.state.ravel(), minlength=len(PixelState))
        self._states.update({state.name: int(counts[state]) for state in PixelState})

    def result(self) -> ScenePart:
        """Regions, pixels per state and mean features of what is labelled."""
        none = np.zeros((0, 0), dtype=np.float32)
        return ScenePart(
            candidates=self._sums.candidates(min_share=self._rules.context.config.query.min_share),
            states=dict(self._states),
            labelled=self._labelled[0].means if self._labelled else none,
        )


def _cut(maps: SceneMaps, at: tuple[slice, slice]) -> SceneMaps:
    return SceneMaps(**{field.name: getattr(maps, field.name)[at] for field in fields(SceneMaps)})
