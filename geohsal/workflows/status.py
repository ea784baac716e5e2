"""Where a run stands: rounds, labels, what was spent, and the command that comes next."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from geohsal.config import Config
from geohsal.errors import GeohsalError
from geohsal.geo.budget import counted
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import read_json, read_record
from geohsal.io.label_store import read_label_raster
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.qgis_project import project_path
from geohsal.io.review_page import page_path
from geohsal.io.run import Round, Run, Step, open_run
from geohsal.io.run_tables import load_scenes, read_config
from geohsal.query.stopping import StopAdvice
from geohsal.workflows.review_time import prices_of
from geohsal.workflows.stages import StageCount, stage_counts
from geohsal.workflows.standing import half_undone, undo_command, way_out
from geohsal.workflows.status_jobs import JobsStatus, jobs_lines, jobs_status
from geohsal.workflows.stop_advice import stop_advice
from geohsal.workflows.submit_record import read_jobs

STRIPE_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStatus:
    """One round; `spent_ha` is None where a region has no area; accuracy only if evaluated."""

    index: int
    step: Step
    regions: int
    spent_pixels: int
    spent_ha: float | None
    spent_minutes: float
    oa: float | None
    miou: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run as a whole; `labelled_pixels` maps class names to what training reads.

    `prices` says what a reviewer's time is counted at, `advice` whether another round is worth it
    (None before any answers are in). `parts` counts the shares of stages whose work is planned but
    not merged yet, `jobs` says where the chain stands that was submitted last.
    """

    run: Path
    name: str
    scenes: int
    rounds: tuple[RoundStatus, ...]
    labelled_pixels: dict[str, int]
    spent_pixels: int
    spent_ha: float | None
    spent_minutes: float
    next_step: str
    next_command: str
    prices: str = ""
    advice: StopAdvice | None = None
    parts: tuple[StageCount, ...] = ()
    jobs: JobsStatus | None = None


def status(run_dir: Path, *, work: bool = True) -> RunStatus:
    """Read where a run stands; changes nothing.

    Args:
        run_dir: the run.
        work: also tell of parts and jobs, which change while others work; asks the queue.

    Raises:
        RunError: `run_dir` is not a run.
        DataError: a file of the run is damaged.
    """
    if not Run(path=run_dir).tiles.is_file() and Run(path=run_dir).jobs.is_file():
        return _to_be_tiled(Run(path=run_dir), work=work)
    run = open_run(run_dir)
    manifest = load_manifest(run.manifest)
    entries = active_entries(read_ledger(run.ledger))
    current = run.current
    next_step, next_command = _next(run, current)
    return RunStatus(
        run=run.path,
        name=manifest.name,
        scenes=len(manifest.scenes),
        rounds=tuple(_round(run.round(index), entries) for index in range(current.index + 1)),
        labelled_pixels=_labelled(run, manifest),
        spent_pixels=sum(entry.pixels for entry in entries),
        spent_ha=_hectares(entries),
        spent_minutes=sum(entry.seconds for entry in entries) / 60,
        next_step=next_step,
        next_command=next_command,
        prices=str(prices_of(entries, _config(run).cost)),
        advice=stop_advice(run),
        **(_work(run) if work else {}),
    )


def _work(run: Run) -> dict[str, Any]:
    record = read_jobs(run)
    folders = {stage: Path(path) for stage, path in record.folders.items()} if record else {}
    return {
        "parts": tuple(stage_counts(run, folders)),
        "jobs": jobs_status(record) if record else None,
    }


def _to_be_tiled(run: Run, *, work: bool) -> RunStatus:
    """A run that only has jobs yet."""
    record = read_jobs(run)
    return RunStatus(
        run=run.path,
        name=_submitted_name(record.manifest if record else None),
        scenes=0,
        rounds=(),
        labelled_pixels={},
        spent_pixels=0,
        spent_ha=None,
        spent_minutes=0.0,
        next_step="wait for the jobs; where one failed, see slurm/logs and submit again",
        next_command=_command("status", run.path),
        **(_work(run) if work else {}),
    )


def _submitted_name(manifest: str | None) -> str:
    """Name in the manifest that is to be tiled; its path where it cannot be read any more."""
    if manifest is None:
        return ""
    try:
        return load_manifest(Path(manifest)).name
    except GeohsalError:
        return manifest


def _round(round_: Round, entries: list[LedgerEntry]) -> RoundStatus:
    own = [entry for entry in entries if entry.round == round_.index]
    measured = read_json(round_.evaluation) if round_.evaluation.exists() else {}
    return RoundStatus(
        index=round_.index,
        step=round_.step,
        regions=len({entry.region_id for entry in own}),
        spent_pixels=sum(entry.pixels for entry in own),
        spent_ha=_hectares(own),
        spent_minutes=sum(entry.seconds for entry in own) / 60,
        oa=measured.get("oa"),
        miou=measured.get("miou"),
    )


def _hectares(entries: list[LedgerEntry]) -> float | None:
    areas = [entry.area_m2 for entry in entries if entry.area_m2 is not None]
    return sum(areas) / 10_000 if len(areas) == len(entries) else None


def _labelled(run: Run, manifest: Manifest) -> dict[str, int]:
    """Labelled pixels per class over all scenes, read in stripes."""
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    for scene_id, window in _stripes(run):
        path = run.labels(scene_id)
        if path.exists():
            classes = read_label_raster(path, window).classes
            counts += np.bincount(classes.ravel(), minlength=len(counts))
    return {info.name: int(counts[info.class_id]) for info in manifest.classes}


def _stripes(run: Run) -> Iterator[tuple[str, Window]]:
    """Windows of full width that together cover each scene once."""
    for scene_id, scene in load_scenes(run).items():
        for row in range(0, scene.height, STRIPE_ROWS):
            yield scene_id, Window(0, row, scene.width, min(STRIPE_ROWS, scene.height - row))


def _next(run: Run, current: Round) -> tuple[str, str]:
    """What comes next in words, and as a command."""
    undone = half_undone(run)
    if undone is not None:
        return way_out(run, undone.index), _command(*undo_command(run)[1:])
    if current.step == "tiled":
        what = "resume the training of" if current.checkpoint.exists() else "train"
        return f"{what} round {current.index}{_to_settle(run, current)}", _command(
            "train", run.path
        )
    if current.step == "trained":
        budget = _config(run).query.budget
        return (
            f"choose what to ask in round {current.index}",
            _command("query", run.path, "--budget", budget),
        )
    files = _review_files(current)
    return (
        f"review {_opened(files)}, save, and take the answers of round {current.index} in",
        _command("ingest", run.path, *files),
    )


def _review_files(current: Round) -> list[Path]:
    """The review files that the query wrote, by its record."""
    names = read_record(current.query_json).get("summary", {}).get("files", [])
    return [current.dir / name for name in names] or [current.queries()]


def _opened(files: Sequence[Path]) -> str:
    """What to open to review these files: projects in QGIS, pages in a browser."""
    projects = [project_path(file) for file in files]
    in_qgis = [
        project if project.exists() else file for project, file in zip(projects, files, strict=True)
    ]
    pages = [path for path in map(page_path, files) if path.exists()]
    words = f"{_named(in_qgis)} in QGIS"
    return f"{words} (or {_named(pages)} in a browser)" if pages else words


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _to_settle(run: Run, current: Round) -> str:
    """A reminder that differences of reviewers can be settled only now."""
    if current.index == 0:
        return ""
    last = run.round(current.index - 1)
    pixels = read_record(last.ingest_json).get("conflict_pixels", 0)
    if not pixels:
        return ""
    return (
        f"; before that, {pixels:,} px in which reviewers of round {last.index} differ can be "
        f"settled in {last.conflicts}"
    )


def _config(run: Run) -> Config:
    return read_config(run) if run.config.exists() else Config()


def _command(*words: str | Path) -> str:
    return shlex.join(["geohsal", *map(str, words)])


def status_lines(summary: RunStatus) -> list[str]:
    """A status as lines for people."""
    if not summary.rounds:
        return [
            f"{summary.run}: {summary.name}, not tiled yet",
            *_work_lines(summary),
            *_next_lines(summary),
        ]
    lines = [f"{summary.run}: {summary.name}, {summary.scenes} scenes"]
    for item in summary.rounds:
        words = f"round {item.index}: {item.step}"
        if item.regions:
            words += f", {counted(item.regions, 'region')} answered ({_spent(item)})"
        if item.oa is not None and item.miou is not None:
            words += f", overall accuracy {100 * item.oa:.1f} %, mIoU {item.miou:.3f}"
        lines.append(words)
    width = max(len(name) for name in summary.labelled_pixels)
    lines.append("labelled pixels:")
    lines += [f"  {name:{width}} {count:>12,}" for name, count in summary.labelled_pixels.items()]
    lines.append(f"spent: {_spent(summary)}")
    lines.append(f"review time: {summary.prices}")
    if summary.advice is not None:
        lines.append(f"advice: {summary.advice.message}")
    return [*lines, *_work_lines(summary), *_next_lines(summary)]


def _work_lines(summary: RunStatus) -> list[str]:
    counts = [
        f"{count.stage}: {count.done:,} of {counted(count.planned, 'part')} done"
        for count in summary.parts
    ]
    return [*counts, *(jobs_lines(summary.jobs) if summary.jobs else ())]


def _next_lines(summary: RunStatus) -> list[str]:
    return [f"next: {summary.next_step}", f"  {summary.next_command}"]


def _spent(item: RoundStatus | RunStatus) -> str:
    area = "" if item.spent_ha is None else f"{item.spent_ha:.2f} ha, "
    return f"{item.spent_pixels:,} px, {area}{item.spent_minutes:.0f} min"
