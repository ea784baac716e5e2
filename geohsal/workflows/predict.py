"""`geohsal predict`: maps of classes, probabilities, error and states of any raster as COGs.

Every window of a raster leaves a part under OUT/.predict; once a raster has all of its parts, its
maps are put together and the parts go. A killed command goes on where it stopped.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from geohsal.config import Config
from geohsal.data.sources import SceneOpener
from geohsal.errors import (
    DataError,
    GeohsalError,
    PartialError,
    PartsMissingError,
    RequestError,
    RunError,
    WriteError,
)
from geohsal.io.atomic import clear_dead, read_record, write_json
from geohsal.io.fingerprint import file_sha256
from geohsal.io.manifest import SceneSource, resolve
from geohsal.io.plan import Plan
from geohsal.io.raster import open_scene
from geohsal.training.model_io import Model, load_model
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.engine import Engine, Shard, missing, parse_shard, run_plan
from geohsal.workflows.outlooks import PredictOutlook
from geohsal.workflows.pool import run_each
from geohsal.workflows.predict_merge import MapJob, MapMerge
from geohsal.workflows.predict_parts import (
    MapShare,
    group_jobs,
    keep_plan,
    plan_maps,
    tidy,
)
from geohsal.workflows.predict_work import PredictWork, portable
from geohsal.workflows.predict_write import MapFolder
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scene_pass import statistics_of
from geohsal.workflows.stages import StageFolder

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSummary:
    """What a prediction wrote; `kept` were there already from the same model.

    `left` counts the chunks without a part where only a share of the work was asked for, and
    `failures` says by raster why it could not be opened; None and nothing where maps were written.
    """

    out: Path
    model_hash: str
    written: tuple[str, ...]
    kept: tuple[str, ...]
    class_pixels: dict[str, dict[str, int]]
    left: int | None = None
    failures: dict[str, str] = field(default_factory=dict)


def predict(
    run_dir: Path | None,
    rasters: Sequence[Path | str] = (),
    *,
    out: Path,
    model: Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    device: str = "auto",
    shard: str | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> PredictSummary:
    """Map scenes of a run, or any rasters with the model's bands.

    Args:
        run_dir: a run with a trained round; None where `model` is given.
        rasters: rasters outside the manifest; none: all scenes of the run.
        out: folder for <name>_{class,probabilities,confidence,error,state}.tif.
        model: a model folder, used instead of the run's newest.
        overwrite: replace maps of another model.
        workers: processes that judge windows, and write maps; changes nothing in the result.
        device: auto, cpu, cuda or cuda:N.
        shard: I/N, I from 0 to N-1: do this share of the windows and write no maps yet.
        scheduler: address of a Dask scheduler whose workers judge windows.
        progress: told of windows.

    Raises:
        RequestError: nothing to predict, or `out` holds maps of another model.
        RunError: the run has no trained round.
        PartsMissingError: a part was damaged; the same command makes it anew.
        WriteError: the disk is full, or `out` cannot be written.
        LostError: a worker process died; the same command goes on.
        PartialError: some rasters failed; the others are written.
    """
    share = None if shard is None else parse_shard(shard)
    work, jobs = _opened(run_dir, rasters, out=out, model=model, overwrite=overwrite, device=device)
    engine = Engine(workers=workers, scheduler=scheduler, progress=progress or Silent())
    return work.run(jobs, share, engine)


def foresee_prediction(
    run_dir: Path | None,
    rasters: Sequence[Path | str] = (),
    *,
    out: Path,
    model: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    shard: str | None = None,
) -> PredictOutlook:
    """What `predict` would do with the same arguments; opens rasters, changes nothing.

    Raises:
        RequestError, RunError: as `predict` would.
        GeohsalError: the only raster cannot be opened.
    """
    share = None if shard is None else parse_shard(shard)
    work, jobs = _opened(run_dir, rasters, out=out, model=model, overwrite=overwrite, device=device)
    return work.foresee(jobs, share)


def _opened(
    run_dir: Path | None,
    rasters: Sequence[Path | str],
    *,
    out: Path,
    model: Path | None,
    overwrite: bool,
    device: str,
) -> tuple["_Predict", list[MapJob]]:
    """The prediction, and what of it is not done yet; nothing is changed."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out}: is a file; give a folder with -o")
    pick_device(device)
    folder, context = _model_folder(run_dir, rasters, model)
    loaded = load_model(folder)
    statistics_of(loaded, folder)
    if context is None:  # workers may stand in another folder
        opener = outside([resolve(str(raster), Path()) for raster in rasters], loaded)
    else:
        opener = context.opener
    work = _Predict(
        PredictWork(model_dir=folder.absolute(), opener=opener, device=device),
        MapFolder(out=out, model_hash=loaded.model_hash, classes=loaded.classes),
        portable(loaded.config),
        overwrite=overwrite,
    )
    names = list(opener.sources) if context is None else list(context.record.scenes)
    return work, work.jobs(names, context)


def _model_folder(
    run_dir: Path | None, rasters: Sequence[Path | str], model: Path | None
) -> tuple[Path, RunContext | None]:
    """The model folder; and the run, where its own scenes are mapped."""
    if run_dir is None:
        if model is None:
            raise RequestError("give a run, or --model with a model folder and rasters")
        if not rasters:
            raise RequestError("nothing to predict: name at least one raster")
        return model, None
    context = open_context(run_dir)
    newest = context.run.last_trained()
    if model is None and newest is None:
        raise RunError(
            f"{run_dir}: no round is trained yet; run: geohsal train {shlex.quote(str(run_dir))}"
        )
    folder = model or (newest.model_dir if newest is not None else run_dir)
    return folder, None if rasters else context


def outside(rasters: Sequence[Path | str], model: Model) -> SceneOpener:
    """An opener of rasters that no manifest lists: no labels, all of them to be mapped."""
    names = [Path(raster).stem for raster in rasters]
    if len(set(names)) < len(names):
        raise RequestError(f"rasters of the same name would overwrite each other: {sorted(names)}")
    return SceneOpener(
        sources={
            name: SceneSource(
                scene_id=name,
                image=str(raster),
                bands=None,
                labels=None,
                truth=None,
                split="test",
                aoi=None,
                nodata=None,
                mask=None,
                crs=None,
                sha256=None,
            )
            for name, raster in zip(names, rasters, strict=True)
        },
        bands=model.bands,
        max_pixels=model.config.tile.max_pixels,
        labels={},
        tiles={name: [] for name in names},
        buffers=dict.fromkeys(names, 0),
    )


class _Predict:
    """One prediction under way."""

    def __init__(
        self, work: PredictWork, target: MapFolder, config: Config, *, overwrite: bool
    ) -> None:
        self._work = work
        self._target = target
        self._config = config
        self._overwrite = overwrite
        self._stage = StageFolder(path=target.out / ".predict")
        self._kept: list[str] = []
        self._counts: dict[str, dict[str, int]] = {}
        self._failures: dict[str, str] = {}
        self._alone = False
        self._names: list[str] = []

    def jobs(self, names: Sequence[str], context: RunContext | None) -> list[MapJob]:
        """What is not done yet; a raster that cannot be opened is a failure among several."""
        jobs = []
        self._alone = len(names) == 1
        self._names = list(names)
        for name in names:
            if self._is_done(name):
                self._kept.append(name)
                continue
            try:
                jobs.append(self._job(name, context))
            except GeohsalError as error:
                if self._alone:
                    raise
                self._failures[name] = str(error)
        return jobs

    def _job(self, name: str, context: RunContext | None) -> MapJob:
        opener = self._work.opener
        if context is not None:
            record, labels = context.record.scenes[name], opener.labels[name]
            digest = f"{record.fingerprint} {file_sha256(labels)}"
            return MapJob(name=name, scene=record.scene, fingerprint=digest)
        with open_scene(opener.sources[name], opener.bands, max_pixels=opener.max_pixels) as reader:
            return MapJob(name=name, scene=reader.scene, fingerprint=reader.fingerprint())

    def foresee(self, jobs: Sequence[MapJob], shard: Shard | None) -> PredictOutlook:
        """What `run` would do."""
        plan, own = self._plan(jobs), self._plan(jobs, shard)
        return PredictOutlook(
            out=self._target.out,
            model=self._work.model_dir,
            model_hash=self._target.model_hash,
            device=str(pick_device(self._work.device)),
            shard=None if shard is None else str(shard),
            scenes={job.name: job.scene.shape for job in jobs},
            kept=tuple(self._kept),
            failures=self._failures,
            chunks=len(plan.chunk_ids),
            chunks_done=len(plan.chunk_ids) - len(missing(plan, self._stage.parts)),
            chunks_now=len(missing(own, self._stage.parts)),
            unpacked_bytes=sum(self._target.unpacked_bytes(job.scene) for job in jobs),
        )

    def run(self, jobs: Sequence[MapJob], shard: Shard | None, engine: Engine) -> PredictSummary:
        """Do a share of the windows; or all that is missing, and write the maps."""
        plan = self._plan(jobs)
        if jobs:
            keep_plan(plan, self._stage)
        if shard is not None:
            self._judge(jobs, shard, engine)
        else:
            self._map(jobs, plan, engine)
            self._failures = self._in_order(self._failures)
            tidy(plan, self._stage, names=self._names)
            clear_dead(self._target.out)
            self._tell_failures()
        for text in self._failures.values():  # whoever writes the maps stumbles over it again
            logger.warning("%s", text)
        return PredictSummary(
            out=self._target.out,
            model_hash=self._target.model_hash,
            written=tuple(self._in_order(self._counts)),
            kept=tuple(self._in_order(dict.fromkeys(self._kept))),
            class_pixels=self._in_order(self._counts),
            left=None if shard is None else len(missing(plan, self._stage.parts)),
            failures=self._failures,
        )

    def _judge(self, jobs: Sequence[MapJob], shard: Shard | None, engine: Engine) -> Plan:
        """Judge the windows (of a share) that lack a part; their plan."""
        own = self._plan(jobs, shard)
        run_plan(own, self._work, self._stage.parts, shard=None, engine=engine)
        return own

    def _map(self, jobs: Sequence[MapJob], plan: Plan, engine: Engine) -> None:
        """Write the maps of rasters whose parts are all there; then of the others, some at a time.

        What shares have judged lies there anyway; what is judged now should not all take up disk.
        """
        lacking = set(missing(plan, self._stage.parts))
        ready: list[MapJob] = []
        others: list[MapJob] = []
        for job in jobs:
            own = {plan.chunk_ids[place] for place in plan.chunks_of(job.name)}
            (others if own & lacking else ready).append(job)
        if ready:
            self._merge(ready, self._plan(ready), engine)
        for group in group_jobs(others, plan):
            self._merge(group, self._judge(group, None, engine), engine)

    def _in_order(self, found: Mapping[str, Value]) -> dict[str, Value]:
        """By raster, in the order in which they were named: they may end in another."""
        return {name: found[name] for name in self._names if name in found}

    def _is_done(self, name: str) -> bool:
        return self._target.is_done(name, overwrite=self._overwrite)

    def _plan(self, jobs: Sequence[MapJob], shard: Shard | None = None) -> Plan:
        share = None if shard is None else MapShare(shard=shard, names=self._names)
        return plan_maps(jobs, self._config, model_hash=self._target.model_hash, share=share)

    # --- merge ---------------------------------------------------------------------------------

    def _merge(self, group: Sequence[MapJob], plan: Plan, engine: Engine) -> None:
        """Write the maps of each raster, and remove its parts; several at a time."""
        engine.progress.start("write maps", len(plan))
        merge = MapMerge(
            target=self._target, plan=plan, stage=self._stage, overwrite=self._overwrite
        )
        jobs = [(job, plan.size_of(job.name)) for job in group]
        merged = run_each(merge, jobs, workers=engine.workers, progress=engine.progress)
        with closing(merged):
            for job, outcome in merged:
                self._note(job.name, outcome)
        engine.progress.done()

    def _note(self, name: str, outcome: dict[str, int] | GeohsalError | None) -> None:
        """Take down what became of a raster.

        Raises:
            WriteError: the next raster would not fit either.
            PartsMissingError: no second such command was faster.
            GeohsalError: it is the only one.
        """
        if isinstance(outcome, PartsMissingError) and self._is_done(name):
            outcome = None
        if outcome is None:
            self._kept.append(name)
        elif isinstance(outcome, dict):
            self._counts[name] = outcome
        elif self._alone or isinstance(outcome, WriteError | PartsMissingError):
            raise outcome
        else:
            self._failures[name] = str(outcome)

    def _tell_failures(self) -> None:
        """Name the rasters that failed.

        Raises:
            PartialError: others did not.
            GeohsalError: all did.
        """
        record = self._target.out / "failures.json"
        self._record_failures(record)
        if not self._failures:
            return
        if not self._counts and not self._kept:
            raise GeohsalError("; ".join(self._failures.values()))
        total = len(self._failures) + len(self._counts) + len(self._kept)
        raise PartialError(
            f"{len(self._failures)} of {total} rasters failed, see {record}",
            failures=self._failures,
        )

    def _record_failures(self, record: Path) -> None:
        """Add what failed now to what failed before, and take out what has its maps by now."""
        before: dict[str, str] = {}
        with suppress(DataError):  # none, or damaged: it is written anew
            before = read_record(record)
        done = {*self._kept, *self._counts}
        standing = {name: text for name, text in before.items() if name not in done}
        standing |= self._failures
        if standing:
            write_json(record, standing)
        else:
            record.unlink(missing_ok=True)
