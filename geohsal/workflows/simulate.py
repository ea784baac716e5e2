"""`geohsal simulate`: replay rounds with truth as the oracle, methods by strategies by seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.config import Config
from geohsal.config.methods import FULL
from geohsal.config.simulation import SimulateConfig
from geohsal.errors import PartialError
from geohsal.geo.budget import counted
from geohsal.io.atomic import read_record
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.simulate_cell import Study, prune
from geohsal.workflows.simulate_picture import draw_curves
from geohsal.workflows.simulate_plan import (
    Folder,
    Task,
    claim,
    is_done,
    wanted_tasks,
)
from geohsal.workflows.simulate_rows import (
    Row,
    origin_of,
    read_rows,
    rounded,
    write_csv,
    write_tables,
)
from geohsal.workflows.simulate_seed import refuse_without_truth, seed_manifest
from geohsal.workflows.simulate_summary import (
    Summary,
    summary_lines,
    summary_of,
    write_summary,
)
from geohsal.workflows.simulate_work import work


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateSummary:
    """What a simulation did: `done` cells this time, `kept` were there before."""

    out: Path
    results: Path
    rows: int
    done: int
    kept: int
    pictures: tuple[Path, ...]
    lines: tuple[str, ...]


PLACE = dict.fromkeys(("dataset", "method", "strategy", "seed", "round"))
"""First columns of the diagnostics."""


def _ignore(line: str) -> None:
    """Nobody listens."""


def simulate(
    manifest_path: Path,
    out: Path,
    *,
    config: Config,
    simulation: SimulateConfig,
    jobs: int = 1,
    only: Sequence[str] = (),
    overwrite: bool = False,
    device: str = "auto",
    report: Callable[[str], None] = _ignore,
    progress: Progress | None = None,
) -> SimulateSummary:
    """Replay rounds on scenes with truth, and draw accuracy against what was spent.

    Every cell (method, strategy, seed) is a run of its own that takes the way of people: tile,
    train, query, an oracle that fills the review files, ingest. Round 0 is trained once for all
    strategies of a method and seed. A seed is that of settings, of the oracle and, where scenes
    have `split: blocks`, of the blocks. Done again it goes on where it stopped; cells and seeds
    may be added later.

    Args:
        manifest_path: scenes with truth.
        out: folder of the simulation.
        config: settings of the runs.
        simulation: what is replayed.
        jobs: processes; each takes a cell at a time and its share of the cores.
        only: cells to do now, as METHOD or METHOD/STRATEGY; without it all.
        overwrite: begin anew in a folder that holds another simulation.
        device: auto, cpu, cuda or cuda:N.
        report: takes the lines that a person reads.
        progress: told how far it is.

    Raises:
        ConfigError: an unknown strategy.
        RequestError: the folder holds another simulation; `only` names no cell.
        LabelError: a scene to ask about has no truth.
        PartialError: some cells failed; the results of the others are written.
    """
    study = _study(load_manifest(manifest_path), out, config, simulation, device)
    wanted = wanted_tasks(simulation, only)
    claim(study.folder, study.manifest, config, simulation, overwrite=overwrite)
    todo = [task for task in wanted if not is_done(study.folder, simulation, task)]
    failures = _work(study, todo, jobs=jobs, report=report, progress=progress or Silent())
    rows = _write_results(study)
    pictures = draw_curves(rows, out)
    if failures:
        raise _partial(out, failures)
    return SimulateSummary(
        out=out,
        results=study.folder.results,
        rows=len(rows),
        done=len(todo),
        kept=len(wanted) - len(todo),
        pictures=pictures,
        lines=tuple(summary_lines(_summary(study, rows))),
    )


def _partial(out: Path, failures: dict[str, str]) -> PartialError:
    return PartialError(
        f"{out}: {counted(len(failures), 'cell')} failed, the results of the others are "
        "written; mend what is named and run the same command again",
        failures=failures,
    )


def _study(
    manifest: Manifest, out: Path, config: Config, simulation: SimulateConfig, device: str
) -> Study:
    """What is simulated; what cannot be is refused before any work."""
    refuse_without_truth(manifest)
    study = Study(
        folder=Folder(path=out),
        manifest=manifest,
        config=config,
        simulate=simulation,
        device=device,
        origin=origin_of(device),
    )
    for task in wanted_tasks(simulation):
        study.settings(task)
    return study


def _work(
    study: Study,
    todo: Sequence[Task],
    *,
    jobs: int,
    report: Callable[[str], None],
    progress: Progress,
) -> dict[str, str]:
    """Do the cells, writing results after each; gives back what failed, with why."""
    everything = wanted_tasks(study.simulate)
    for seed in sorted({task.seed for task in todo}):  # before processes share them
        seed_manifest(
            study.manifest,
            study.folder.seed(seed),
            seed=seed,
            config=study.config,
            initial=study.simulate.initial,
        )
    failures: dict[str, str] = {}
    for task, failure in work(study, todo, jobs=jobs, progress=progress):
        report(f"{task}: {'done' if failure is None else failure}")
        if failure is not None:
            failures[str(task)] = failure
        elif task.strategy or task.method == FULL:
            _tidy(study, everything)
            _write_results(study)
    _tidy(study, everything)
    return failures


def _summary(study: Study, rows: Sequence[Row]) -> Summary:
    return summary_of(rows, rounds=study.simulate.rounds, seeds=study.simulate.seeds)


def _write_results(study: Study) -> list[Row]:
    """Write tables and summary of all rows that there are, and give the rows back."""
    rows, folder = read_rows(study.folder.cells), study.folder
    if rows:
        write_tables(rows, folder.results, folder.results.with_suffix(".parquet"))
        write_summary(_summary(study, rows), folder.path)
    diagnoses = [read_record(path, "method") for path in sorted(folder.diagnoses.glob("*.json"))]
    if diagnoses:
        write_csv(folder.diagnostics, [PLACE | rounded(values) for values in diagnoses])
    return rows


def _tidy(study: Study, tasks: Sequence[Task]) -> None:
    """Delete what finished cells, and rounds 0 that nothing will begin from, do without."""
    if study.simulate.keep == "models":
        return
    done = {task for task in tasks if is_done(study.folder, study.simulate, task)}
    for task in done:
        prune(study.folder.run(task))
    for start in {task.before for task in done}:
        if start is not None and all(t in done for t in tasks if t.before == start):
            prune(study.folder.run(start))
