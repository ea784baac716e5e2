"""The second half of a query: merge what was judged, and choose regions within the budget."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.dataset import seed_of
from geohsal.errors import DataError
from geohsal.geo.budget import Budget
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.atomic import read_record
from geohsal.io.run import Round
from geohsal.io.superpixel_raster import read_superpixels
from geohsal.query.costs import cost_seconds, region_areas_m2, region_costs
from geohsal.query.evidence import class_weights
from geohsal.query.packages import deal, region_positions
from geohsal.query.regions import Candidates, join_candidates, tiles_of
from geohsal.query.selection import Selection, select, to_query_regions
from geohsal.training.maps import pool_mask
from geohsal.training.model_io import load_model
from geohsal.workflows.asked import blocked_pixels, unchanged
from geohsal.workflows.chunk_parts import SceneParts
from geohsal.workflows.context import RunContext
from geohsal.workflows.engine import require_parts
from geohsal.workflows.pool import run_each
from geohsal.workflows.progress import Progress
from geohsal.workflows.query_parts import kept_path, read_kept
from geohsal.workflows.query_score import Scores
from geohsal.workflows.query_summary import Dealt, QuerySummary, Shares, summary_of
from geohsal.workflows.region_units import superpixel_rasters
from geohsal.workflows.review_files import ReviewFile, review_files
from geohsal.workflows.review_time import review_prices
from geohsal.workflows.round_rasters import read_states, read_teacher
from geohsal.workflows.scene_merge import MergeRules, SceneMerge
from geohsal.workflows.scene_pass import statistics_of

Teacher = Callable[[Window], NDArray[np.uint8]]
"""Gives the classes (row, col) that the teacher names in a window of a scene."""


class Choice:
    """One choice under way: everything that its steps share.

    `asking` is the open round of the run; maps and files are written to `target`, which for a dry
    run is a round elsewhere. What scenes the scores call kept is read from `asking`.
    """

    def __init__(
        self, context: RunContext, asking: Round, target: Round, shares: Shares, scores: Scores
    ) -> None:
        self.shares = shares
        self.packages: list[list[str]] = []
        self.prices = review_prices(context.run, context.config.cost)
        self.context = context
        self.asking = asking
        self.round = target
        self.scores = scores
        self.scenes: dict[str, Scene] = context.scenes
        self.blocked, self.resting = blocked_pixels(context.run, self.scenes)
        self.superpixels: Mapping[str, Path] = {}
        self.labelled: list[NDArray[np.float32]] = []
        self.states: Counter[str] = Counter()

    def choose(
        self, budget: Budget, *, workers: int, progress: Progress
    ) -> tuple[list[QueryRegion], QuerySummary]:
        """Merge every scene, several at a time, then choose regions within the budget.

        Raises:
            PartsMissingError: not every chunk is judged.
            BudgetError: the budget buys nothing.
            LostError: a worker process died.
        """
        candidates = self.merge(workers=workers, progress=progress)
        selection = self.select(candidates, budget)
        regions = self.regions(candidates, selection)
        second = self.deal(regions, budget)
        return regions, self.summary(regions, selection, budget, second)

    # --- merge ---------------------------------------------------------------------------------

    def merge(self, *, workers: int, progress: Progress) -> Candidates:
        """Maps and candidates of every scene; scenes that were merged before are kept."""
        scores = self.scores
        plan, folder = scores.plan, scores.folder
        require_parts(plan, folder.parts, command=self._command)
        self.superpixels = superpixel_rasters(self.context, self.scenes, progress)
        for scene_id in dict.fromkeys(region.scene_id for region, _ in self.resting):
            self._rest(self.scenes[scene_id])
        todo = [
            (scene, plan.size_of(name))
            for name, scene in self.scenes.items()
            if name not in scores.kept
        ]
        if todo:
            progress.start("merge", len(plan))
            for _ in run_each(self._merge(), todo, workers=workers, progress=progress):
                pass
            progress.done()
        return join_candidates([self._read(scene_id) for scene_id in self.scenes])

    def _merge(self) -> SceneMerge:
        rules = MergeRules(
            context=self.context,
            blocked=self.blocked,
            seed=seed_of(self.context.config.seed, "query", self.asking.index),
            class_weight=class_weights(_labelled_pixels(self.context)),
            superpixels=self.superpixels,
        )
        return SceneMerge(
            rules=rules,
            plan=self.scores.plan,
            parts=self.scores.folder.parts,
            command=self._command,
            target=self.round,
            unit=self.scores.unit,
        )

    @property
    def _command(self) -> str:
        return f"geohsal query {shlex.quote(str(self.context.run.path))} --shard 0/1"

    def _read(self, scene_id: str) -> Candidates:
        path = kept_path(self._round_of(scene_id), scene_id)
        part = read_kept(path, self.scores.unit)
        if part is None:
            raise DataError(f"{path}: has just been changed; run the command again")
        self.states.update(part.states)
        if len(part.labelled):
            self.labelled.append(part.labelled)
        return part.candidates

    def _rest(self, scene: Scene) -> None:
        """Unsure and skipped regions stay out of the pool while the model says the same there."""
        teacher = self._teacher(scene)
        for region, asked_in in self.resting:
            if region.scene_id == scene.scene_id and unchanged(
                self.context.run, region, asked_in, scene=scene, teacher=teacher
            ):
                self.blocked.add(region)

    def _teacher(self, scene: Scene) -> Teacher:
        scores = self.scores
        if scene.scene_id in scores.kept:
            return partial(read_teacher, self.asking, scene)
        parts = SceneParts(scores.plan, scores.folder.parts, scene.scene_id, command=self._command)
        return parts.teacher

    # --- choose --------------------------------------------------------------------------------

    def select(self, candidates: Candidates, budget: Budget) -> Selection:
        """Regions within the budget."""
        areas = None
        if budget.unit == "m2" and not self.context.record.local:
            areas = region_areas_m2(candidates, self.scenes)
        config = self.context.config
        all_tiles = [tile for tiles in self.context.tiles.values() for tile in tiles]
        return select(
            candidates,
            region_costs(
                candidates,
                budget,
                config=self.prices.over(config.cost),
                areas_m2=areas,
                overlap=self.shares.overlap,
            ),
            budget=budget,
            config=config.query,
            seed=seed_of(config.seed, "select", self.round.index),
            tiles=tiles_of(candidates, all_tiles),
            class_names=self.context.manifest.class_names,
            labelled=np.concatenate(self.labelled) if self.labelled else None,
            proven=self._error_source() == "emd",
        )

    def _error_source(self) -> str:
        model = load_model(self.asking.model_dir)
        return str(statistics_of(model, self.asking.model_dir).thresholds.error_source)

    def regions(self, candidates: Candidates, selection: Selection) -> list[QueryRegion]:
        """The chosen regions with their pixels.

        Raises:
            DataError: a state raster is not the one that was judged.
        """
        config = self.context.config
        masks = self._masks(candidates, selection.chosen)
        for index, mask in zip(selection.chosen.tolist(), masks, strict=True):
            if int(mask.sum()) != candidates.pixels[index]:
                scene_id = candidates.scene_id(index)
                raise DataError(
                    f"{self._round_of(scene_id).rasters}: the state raster of {scene_id} is not "
                    f"the one that was judged; delete {self.round.dir / 'parts'} and query again"
                )
        return to_query_regions(
            candidates,
            selection,
            masks=masks,
            round_index=self.round.index,
            areas_m2=region_areas_m2(candidates, self.scenes, selection.chosen),
            seconds=cost_seconds(candidates.answers, self.prices.over(config.cost)),
        )

    def _round_of(self, scene_id: str) -> Round:
        """Where the rasters of a scene lie."""
        return self.asking if scene_id in self.scores.kept else self.round

    def deal(self, regions: Sequence[QueryRegion], budget: Budget) -> float:
        """Share the regions out; gives back the minutes of the second reviews."""
        if self.shares.packages == 1:
            return 0.0
        first = sum(region.cost_min for region in regions)
        in_time = budget.unit == "seconds"
        places, second = deal(
            regions,
            region_positions(regions, self.scenes),
            packages=self.shares.packages,
            overlap=self.shares.overlap,
            seed=seed_of(self.context.config.seed, "packages", self.round.index),
            spare_min=budget.amount / 60 - first if in_time else float("inf"),
        )
        self.packages = [[regions[place].region_id for place in own] for own in places]
        return second

    def _masks(self, candidates: Candidates, chosen: NDArray[np.intp]) -> list[NDArray[np.bool_]]:
        masks: dict[int, NDArray[np.bool_]] = {}
        for scene_id in self.scenes:
            places = [int(index) for index in chosen if candidates.scene_id(int(index)) == scene_id]
            if not places:
                continue
            with self.context.open(scene_id) as source:
                for index in places:
                    window: Window = candidates.window(index)
                    state = read_states(self._round_of(scene_id), self.scenes[scene_id], window)
                    blocked = self.blocked.window(scene_id, window)
                    masks[index] = pool_mask(source, window, state, blocked)
                    if candidates.unit == "superpixel":
                        own = read_superpixels(self.superpixels[scene_id], window) - 1
                        masks[index] &= own == candidates.atom[index]
        return [masks[int(index)] for index in chosen]

    def files(self, regions: Sequence[QueryRegion]) -> list[ReviewFile]:
        """The review files of the round, packages and scenes without a position apart."""
        return review_files(self.round, regions, self.scenes, self.packages)

    def summary(
        self,
        regions: Sequence[QueryRegion],
        selection: Selection,
        budget: Budget,
        second_min: float,
    ) -> QuerySummary:
        """What is asked, in numbers; `second_min` are the minutes of second reviews."""
        return summary_of(
            regions,
            selection,
            budget,
            round_index=self.round.index,
            files=[file.path for file in self.files(regions)],
            states=self.states,
            dealt=Dealt(shares=self.shares, packages=self.packages, second_min=second_min),
            prices=str(self.prices),
        )


def _labelled_pixels(context: RunContext) -> NDArray[np.int64]:
    """Labelled train pixels per class, as the round was trained on."""
    found = read_record(context.run.current.metrics, "labelled_pixels")
    metrics = found["labelled_pixels"]
    return np.asarray([metrics[name] for name in context.manifest.class_names], dtype=np.int64)
