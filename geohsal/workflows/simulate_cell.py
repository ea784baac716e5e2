"""One cell of a simulation: rounds of train, evaluate, query, answer and ingest, as people do."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from geohsal import __version__
from geohsal.config import Config
from geohsal.config.methods import FOREST, FULL, with_method
from geohsal.config.simulation import SimulateConfig
from geohsal.io.atomic import read_record, write_json
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.manifest import Manifest
from geohsal.io.run import Round, Run
from geohsal.io.run_tables import read_summary, write_config
from geohsal.query.acquisition import acquisition
from geohsal.training.metrics import Accuracy
from geohsal.training.ranks import ALONE
from geohsal.workflows.answer import answer
from geohsal.workflows.diagnose import diagnose, diagnosis_row
from geohsal.workflows.evaluate import Evaluation, evaluate
from geohsal.workflows.ingest import ingest
from geohsal.workflows.progress import Progress
from geohsal.workflows.query import query
from geohsal.workflows.simulate_forest import measure_forest
from geohsal.workflows.simulate_initial import Spent
from geohsal.workflows.simulate_plan import ALL, Folder, Task, has_forest
from geohsal.workflows.simulate_rows import Origin, Row, read_row, write_row
from geohsal.workflows.simulate_seed import full_manifest, initial_spent, manifest_of
from geohsal.workflows.tile import tile
from geohsal.workflows.train import train

COPYING = ".part"
BULKY = ("model", "rasters", "parts")
"""Folders of a round that finished cells do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that the tasks of a simulation share; travels to worker processes."""

    folder: Folder
    manifest: Manifest
    config: Config
    simulate: SimulateConfig
    device: str
    origin: Origin

    def settings(self, task: Task) -> Config:
        """The settings of a task's run.

        Raises:
            ConfigError: the strategy or the method is unknown.
        """
        config = replace(self.config, seed=task.seed)
        if task.method == FULL:  # one round: a withheld fifth would never be learnt from
            steps = self.config.train.steps * self.simulate.rounds
            return replace(config, train=replace(config.train, steps=steps, heldout_share=0.0))
        config = with_method(config, task.method)
        return with_strategy(config, task.strategy) if task.strategy else config


def with_strategy(config: Config, strategy: str) -> Config:
    """Settings that ask by another acquisition function.

    Raises:
        ConfigError: there is no such function.
    """
    acquisition(strategy)
    return replace(config, query=replace(config.query, strategy=strategy))


def run_task(study: Study, task: Task, progress: Progress) -> None:
    """Do a task, or what is left of it.

    Raises:
        GeohsalError: one of its steps cannot be done.
    """
    if task.method == FULL:
        _full(study, task, progress)
    elif not task.strategy:
        _start(study, task, progress)
    else:
        _cell(study, task, progress)


def prune(run_dir: Path) -> None:
    """Delete models, rasters and pages of a run; labels, ledger, reviews and records stay."""
    for round_dir in sorted(run_dir.glob("round_*")):
        for name in BULKY:
            shutil.rmtree(round_dir / name, ignore_errors=True)
        for pattern in ("*.html", "*.qgz", "training.ckpt"):
            for path in round_dir.glob(pattern):
                path.unlink()


def _start(study: Study, task: Task, progress: Progress) -> None:
    """Tile and train round 0, which every strategy of the method and seed has in common."""
    run_dir = study.folder.run(task)
    tile(
        manifest_of(study.folder.seed(task.seed)),
        run_dir,
        config=study.settings(task),
        progress=progress,
    )
    if Run(path=run_dir).round(0).step == "tiled":
        train(run_dir, device=study.device, progress=progress, ranks=ALONE)
    _measure(study, task, Run(path=run_dir).round(0), progress)


def _full(study: Study, task: Task, progress: Progress) -> None:
    """Train once on the truth of all train pixels, as many steps as all rounds have together."""
    run_dir = study.folder.run(task)
    manifest = full_manifest(study.manifest, study.folder.seed(task.seed), seed=task.seed)
    tile(manifest, run_dir, config=study.settings(task), progress=progress)
    train(run_dir, device=study.device, progress=progress, ranks=ALONE)
    round_ = Run(path=run_dir).round(0)
    row = _row(
        study,
        replace(task, strategy=ALL),
        round_,
        accuracy=evaluate(run_dir, device=study.device, progress=progress),
        spent=Spent(),
    )
    pool = read_summary(Run(path=run_dir)).train_valid_pixels
    row = replace(
        row, spent_pixels=pool, spent_share=1.0, spent_ha=None, spent_min=None, regions=None
    )
    write_row(study.folder.row(method=FULL, strategy=ALL, seed=task.seed, round_index=0), row)


def _cell(study: Study, task: Task, progress: Progress) -> None:
    """All rounds of a strategy, from a copy of round 0."""
    run = Run(path=study.folder.run(task))
    if not run.path.exists():
        _copy_start(study, task)
    last = study.simulate.rounds - 1
    for index in range(last + 1):
        round_ = run.round(index)
        if round_.step == "tiled" and not _kept(round_, task.method).exists():
            train(run.path, device=study.device, progress=progress, ranks=ALONE)
        _measure(study, task, round_, progress)
        if index < last:
            _ask(study, task, round_, progress)
            _diagnose(study, task, round_)


def _copy_start(study: Study, task: Task) -> None:
    """Copy round 0 whole or not at all, and let its settings name the strategy."""
    start = task.before
    assert start is not None
    target = study.folder.run(task)
    part = target.with_name(f".{target.name}{COPYING}")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(study.folder.run(start), part)
    write_config(Run(path=part).config, study.settings(task), version=__version__)
    part.replace(target)


def _ask(study: Study, task: Task, round_: Round, progress: Progress) -> None:
    """Query, let the oracle answer every file, take the answers in; what is done is left."""
    run_dir, noise = round_.run_dir, study.simulate.noise
    if round_.step == "ingested":
        return
    asked = query(run_dir, budget=study.simulate.budget, device=study.device, progress=progress)
    reviewed = []
    for path in asked.files:
        out = path.with_name(f"reviewed_{path.name}")
        answer(
            run_dir,
            path,
            out,
            noise=noise.label,
            skip=noise.skip,
            slop_px=noise.slop_px,
            seed=task.seed,
        )
        reviewed.append(out)
    ingest(run_dir, reviewed)


def _diagnose(study: Study, task: Task, round_: Round) -> None:
    """Measure a queried round against the truth of its pool, before its maps are deleted."""
    target = study.folder.diagnosis(task, round_.index)
    if target.exists():
        return
    found = diagnose(round_.run_dir, round_index=round_.index, reference="truth")
    place = {"dataset": study.manifest.name, "method": task.method, "strategy": task.strategy}
    write_json(target, {**place, "seed": task.seed, "round": round_.index, **diagnosis_row(found)})


# --- results -------------------------------------------------------------------------------------


def _measure(study: Study, task: Task, round_: Round, progress: Progress) -> None:
    """Measure a trained round, and the forest beside it; publish both where a strategy is known.

    Rows are kept in the run first: those of round 0 travel with the copy of its run.
    """
    kept, forest = _kept(round_, task.method), _kept(round_, FOREST)
    if not kept.exists():
        found = evaluate(round_.run_dir, device=study.device, progress=progress)
        spent = _spent(study, task, round_)
        write_row(kept, _row(study, task, round_, accuracy=found, spent=spent))
    if has_forest(study.simulate, task) and not forest.exists():
        write_row(forest, _forest_row(study, task, round_))
    if not task.strategy:
        return
    for path in (kept, forest):
        if path.exists():
            row = read_row(path).of(task.strategy)
            target = study.folder.row(
                method=row.method, strategy=row.strategy, seed=row.seed, round_index=row.round
            )
            write_row(target, row)


def _kept(round_: Round, method: str) -> Path:
    return round_.run_dir / "rows" / f"r{round_.index}.{method}.json"


def _row(
    study: Study, task: Task, round_: Round, *, accuracy: Evaluation | Accuracy, spent: Spent
) -> Row:
    """The row of a trained round."""
    metrics = read_record(round_.metrics, "labelled_pixels", "seconds")
    pool = read_summary(Run(path=round_.run_dir)).train_valid_pixels
    return Row(
        dataset=study.manifest.name,
        method=task.method,
        strategy=task.strategy,
        seed=task.seed,
        round=round_.index,
        spent_pixels=spent.pixels,
        spent_share=spent.pixels / pool,
        labelled_pixels=sum(metrics["labelled_pixels"].values()),
        spent_ha=None if spent.area_m2 is None else spent.area_m2 / 1e4,
        spent_min=spent.seconds / 60,
        regions=spent.regions,
        oa=accuracy.oa,
        miou=accuracy.miou,
        macro_f1=accuracy.macro_f1,
        kappa=accuracy.kappa,
        iou={
            name: None if found["iou"] is None else float(found["iou"])
            for name, found in accuracy.per_class.items()
        },
        train_seconds=metrics["seconds"],
        commit=study.origin.commit,
        machine=study.origin.machine,
    )


def _forest_row(study: Study, task: Task, round_: Round) -> Row:
    """The row of a random forest on the labels that a round was trained on."""
    found = measure_forest(
        round_.run_dir,
        round_index=round_.index,
        seed=task.seed,
        jobs=torch.get_num_threads(),
    )
    spent = _spent(study, task, round_)
    row = _row(study, task, round_, accuracy=found.accuracy, spent=spent)
    return replace(
        row,
        method=FOREST,
        labelled_pixels=found.labelled_pixels,
        train_seconds=found.seconds,
    )


def _spent(study: Study, task: Task, round_: Round) -> Spent:
    """What was spent before a round was trained, by the ledger."""
    entries = active_entries(read_ledger(Run(path=round_.run_dir).ledger))
    spent = initial_spent(study.folder.seed(task.seed))
    if read_summary(Run(path=round_.run_dir)).local:
        spent = replace(spent, area_m2=None)
    for entry in entries:
        if entry.round < round_.index:
            own = Spent(
                pixels=entry.pixels, area_m2=entry.area_m2, seconds=entry.seconds, regions=1
            )
            spent = spent.plus(own)
    return spent
