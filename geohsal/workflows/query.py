"""`geohsal query`: predict, refine, score, select; what it writes is in `query_write`."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.dataset import seed_of
from geohsal.errors import DataError, RequestError, RunError
from geohsal.geo.budget import Budget, parse_budget, parse_share
from geohsal.geo.patches import slices
from geohsal.geo.scene import QueryRegion, Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.atomic import read_record
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Round
from geohsal.io.superpixel_raster import read_superpixels
from geohsal.query.acquisition import acquisition
from geohsal.query.costs import cost_seconds, region_areas_m2, region_costs
from geohsal.query.evidence import class_weights
from geohsal.query.packages import deal, region_positions
from geohsal.query.regions import Candidates, join_candidates, tiles_of
from geohsal.query.selection import Selection, select, to_query_regions
from geohsal.refine.plar import require_kernel
from geohsal.refine.thresholds import Thresholds
from geohsal.training.maps import pool_mask
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.asked import blocked_pixels, unchanged
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.query_parts import ScenePart, read_part, write_part
from geohsal.workflows.query_summary import Dealt, QuerySummary, Shares, summary_of, words
from geohsal.workflows.query_write import clear, finished, write_record, write_round
from geohsal.workflows.region_units import add_maps, layout_of, superpixel_rasters
from geohsal.workflows.review_files import ReviewFile, review_files
from geohsal.workflows.review_time import review_prices
from geohsal.workflows.round_rasters import read_states, write_maps, write_view
from geohsal.workflows.scene_pass import SceneJudges, ScenePass, scene_judges, statistics_of
from geohsal.workflows.standing import refuse_half_undone

logger = logging.getLogger(__name__)


def query(
    run_dir: Path,
    *,
    budget: str | None = None,
    packages: int = 1,
    overlap: str = "0%",
    overwrite: bool = False,
    workers: int = 1,
    device: str = "auto",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> QuerySummary:
    """Ask about the regions of the open round that are worth most within a budget.

    Args:
        run_dir: a run whose open round is trained.
        budget: see `geohsal.geo.budget.parse_budget`; default: query.budget of the settings.
        packages: review files to write, each of neighbouring regions and equal work.
        overlap: share of the regions that go into two packages, to see how far people agree.
        overwrite: choose again although the round is queried, while its review file is unedited.
        workers: processes that judge chunks; changes nothing in the result.
        device: auto, cpu, cuda or cuda:N.
        dry_run: choose and tell, but write no review file.
        progress: told of every chunk.

    Raises:
        RunError: the round is not trained, or queried with another request; or an undo before it
            was interrupted.
        ConfigError: nobody knows the acquisition.
        BudgetError: the budget or the share cannot be read, or the budget buys nothing.
        RequestError: an overlap without packages, or fewer regions than packages.
        KernelError: the kernel that the settings ask for cannot run here.
    """
    shares = _shares(packages, overlap)
    context = _trained_context(run_dir)
    round_, record = context.run.current, context.record
    text = context.config.query.budget if budget is None else budget
    wanted = parse_budget(text, pool_pixels=record.train_valid_pixels, local=record.local)
    request = request_hash(context, round_, f"{text}{shares}")
    if round_.step == "queried":
        summary = finished(round_, request, overwrite=overwrite, asked=words(text, shares))
        if summary is not None:
            return summary
    require_kernel(context.config.plar, pick_device(device))
    reporter = progress or Silent()
    if dry_run:
        with TemporaryDirectory() as folder:
            elsewhere = Round(index=round_.index, run_dir=Path(folder))
            work = _Query(context, round_, elsewhere, shares)
            return replace(work.choose(wanted, workers, device, reporter)[1], files=())
    work = _Query(context, round_, round_, shares)
    regions, summary = work.choose(wanted, workers, device, reporter)
    clear(round_)
    write_round(context, round_, regions, files=work.files(regions), request=request)
    write_record(
        round_, summary, request=request, packages=work.packages, asked=words(text, shares)
    )
    return summary


def _shares(packages: int, overlap: str) -> Shares:
    """How the round is shared out.

    Raises:
        RequestError: an overlap without packages.
        BudgetError: the share cannot be read.
    """
    shares = Shares(packages=packages, overlap=parse_share(overlap, name="--overlap"))
    if shares.overlap and packages < 2:
        raise RequestError(f"--overlap {overlap}: needs --packages of at least 2")
    return shares


def _trained_context(run_dir: Path) -> RunContext:
    """The open run, where its round may be queried.

    Raises:
        ConfigError: nobody knows the acquisition.
        RunError: the round is not trained, or an undo before it was interrupted.
    """
    context = open_context(run_dir)
    acquisition(context.config.query.strategy)
    refuse_half_undone(context.run)
    round_ = context.run.current
    if round_.step == "tiled":
        raise RunError(
            f"{run_dir}: round {round_.index} is not trained; run: geohsal train {run_dir}"
        )
    return context


def request_hash(context: RunContext, round_: Round, budget: str) -> str:
    """Identifies a query: model, settings, labels and budget (with its sharing out)."""
    digest = hashlib.sha256(unit_hash(context, round_).encode())
    digest.update(f"budget {budget}".encode())
    return digest.hexdigest()


def unit_hash(context: RunContext, round_: Round) -> str:
    """Identifies the maps of a round: model, settings of refinement and query, labels."""
    config = context.config
    model_hash = str(read_record(round_.model_json, "model_hash")["model_hash"])
    parts = [model_hash, repr(config.plar), repr(config.query)]
    parts += [repr(config.ssl), repr(config.emd), str(config.seed)]
    parts += [file_sha256(context.run.labels(scene_id)) for scene_id in context.record.scenes]
    if context.run.ledger.exists():
        parts.append(file_sha256(context.run.ledger))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Query:
    """One query under way: everything that its steps share.

    `asking` is the open round of the run; maps and files are written to `target`, which for a dry
    run is a round elsewhere.
    """

    def __init__(self, context: RunContext, asking: Round, target: Round, shares: Shares) -> None:
        self.shares = shares
        self.packages: list[list[str]] = []
        self.prices = review_prices(context.run, context.config.cost)
        self.context = context
        self.asking = asking
        self.round = target
        self.model: Model = load_model(asking.model_dir)
        self.scenes: dict[str, Scene] = context.scenes
        self.blocked, self.resting = blocked_pixels(context.run, self.scenes)
        self.superpixels: Mapping[str, Path] = {}
        self.labelled: list[NDArray[np.float32]] = []
        self.states: Counter[str] = Counter()
        self._unit = unit_hash(context, asking)
        self._weights = class_weights(_labelled_pixels(context))

    def choose(
        self, budget: Budget, workers: int, device: str, progress: Progress
    ) -> tuple[list[QueryRegion], QuerySummary]:
        """Judge every scene, then choose regions within the budget."""
        self.superpixels = superpixel_rasters(self.context, progress)
        plan = ScenePass(
            model_dir=self.asking.model_dir,
            opener=self.context.opener,
            config=self.context.config,
            device=device,
            blocked=self.blocked,
            superpixels=self.superpixels,
        )
        with scene_judges(plan, self.model, workers=workers) as judges:
            candidates = self.judge_scenes(judges, progress)
        selection = self.select(candidates, budget)
        regions = self.regions(candidates, selection)
        second = self.deal(regions, budget)
        return regions, self.summary(regions, selection, budget, second)

    # --- judge ---------------------------------------------------------------------------------

    def judge_scenes(self, judges: SceneJudges, progress: Progress) -> Candidates:
        """Maps and candidates of every scene; scenes that a killed query finished are kept."""
        total = sum(len(judges.chunks(*scene.shape)) for scene in self.scenes.values())
        progress.start(f"query round {self.round.index}", total)
        parts = [self._judge_scene(scene_id, judges, progress) for scene_id in self.scenes]
        progress.done()
        return join_candidates(parts)

    def _judge_scene(self, scene_id: str, judges: SceneJudges, progress: Progress) -> Candidates:
        scene = self.scenes[scene_id]
        part = self.round.dir / "parts" / f"{scene_id}.npz"
        kept = read_part(part, self._unit)
        if kept is not None:
            progress.advance(len(judges.chunks(*scene.shape)))
            return self._keep(kept)
        layout = layout_of(self.context, scene_id, self.superpixels)
        judged = judges.judge(
            scene_id,
            layout,
            seed=seed_of(self.context.config.seed, "query", self.round.index),
            class_weight=self._weights,
            progress=progress,
        )
        maps = judged.maps
        with self.context.open(scene_id) as source:
            self._rest(scene, maps)
            pool = pool_mask(source, scene.extent, maps.state, self.blocked.get(scene_id))
            write_view(self.round.raster(scene_id, "view"), source)
        add_maps(
            judged.sums,
            pool,
            maps,
            config=self.context.config.query,
            superpixels=self.superpixels.get(scene_id),
        )
        write_maps(self.round, scene, maps, self.context.manifest.classes)
        candidates = judged.sums.candidates(min_share=self.context.config.query.min_share)
        counts = np.bincount(maps.state.ravel(), minlength=len(PixelState))
        states = {state.name: int(counts[state]) for state in PixelState}
        found = ScenePart(candidates=candidates, states=states, labelled=judged.labelled)
        write_part(part, self._unit, found)
        return self._keep(found)

    def _keep(self, part: ScenePart) -> Candidates:
        self.states.update(part.states)
        if len(part.labelled):
            self.labelled.append(part.labelled)
        return part.candidates

    def _rest(self, scene: Scene, maps: SceneMaps) -> None:
        """Unsure and skipped regions stay out of the pool while the model says the same there."""
        for region, asked_in in self.resting:
            if region.scene_id == scene.scene_id and unchanged(
                self.context.run, region, asked_in, scene=scene, maps=maps
            ):
                blocked = self.blocked.setdefault(
                    scene.scene_id, np.zeros(scene.shape, dtype=np.bool_)
                )
                blocked[slices(region.cell)] |= region.mask

    # --- choose --------------------------------------------------------------------------------

    def select(self, candidates: Candidates, budget: Budget) -> Selection:
        """Regions within the budget."""
        areas = None if self.context.record.local else region_areas_m2(candidates, self.scenes)
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
            proven=self._thresholds().error_source == "emd",
        )

    def _thresholds(self) -> Thresholds:
        return statistics_of(self.model, self.asking.model_dir).thresholds

    def regions(self, candidates: Candidates, selection: Selection) -> list[QueryRegion]:
        """The chosen regions with their pixels."""
        config = self.context.config
        masks = self._masks(candidates, selection.chosen)
        for index, mask in zip(selection.chosen.tolist(), masks, strict=True):
            if int(mask.sum()) != candidates.pixels[index]:
                raise DataError(
                    f"{self.round.rasters}: the state raster of {candidates.scene_id(index)} is "
                    "not the one that was judged; delete "
                    f"{self.round.dir / 'parts'} and query again"
                )
        return to_query_regions(
            candidates,
            selection,
            masks=masks,
            round_index=self.round.index,
            areas_m2=region_areas_m2(candidates, self.scenes),
            seconds=cost_seconds(candidates.answers, self.prices.over(config.cost)),
        )

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
                    state = read_states(self.round, self.scenes[scene_id], window)
                    masks[index] = pool_mask(source, window, state, self.blocked.get(scene_id))
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
