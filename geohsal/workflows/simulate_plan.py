"""What a simulation has to do, and where it keeps things: tasks, folders, its own record."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geohsal.config import Config, config_from_dict, config_to_dict
from geohsal.config.methods import FOREST, FULL, OURS, find_method
from geohsal.config.simulation import SimulateConfig, simulation_to_dict
from geohsal.errors import RequestError, RunError
from geohsal.io.atomic import read_record, write_json
from geohsal.io.manifest import Manifest, dump_manifest

FORMAT_VERSION = 1
START = "round0"
"""Folder of the run that all strategies of a method and seed begin from."""
ALL = "all"
"""Strategy of rows whose labels are all there are."""
GROWING = ("cells", "seeds", "keep")
"""Keys of the section that may change in a folder: more is done, what is there stays right."""


DERIVED = (
    *("results.csv", "results.parquet", "diagnostics.csv", "summary.json", "summary.md"),
    *("curves.png", "curves.svg", "curves_classes.png"),
)
"""Tables and pictures that are made of cells and diagnoses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work: all rounds of a cell, or round 0 of a method (`strategy` empty).

    Tasks of the method `full` have neither strategy nor round 0 in common with others.
    """

    method: str
    strategy: str
    seed: int

    def __str__(self) -> str:
        """For people: `geohsal/plar, seed 0`."""
        if self.method == FULL:
            return f"{FULL}, seed {self.seed}"
        return f"{self.method}/{self.strategy or 'round 0'}, seed {self.seed}"

    @property
    def before(self) -> "Task | None":
        """What must be done before: round 0."""
        if self.method == FULL or not self.strategy:
            return None
        return Task(method=self.method, strategy="", seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder of a simulation; names its files, never opens them."""

    path: Path

    @property
    def record(self) -> Path:
        """What the folder was made for."""
        return self.path / "simulate.json"

    @property
    def cells(self) -> Path:
        """One JSON file per row of the results."""
        return self.path / "cells"

    @property
    def errors(self) -> Path:
        """Tracebacks of cells that failed by a mistake of geohsal."""
        return self.path / "errors"

    @property
    def results(self) -> Path:
        """All rows as CSV; Parquet, summary and pictures lie beside it."""
        return self.path / "results.csv"

    def seed(self, seed: int) -> Path:
        """Manifests (and labels drawn by lot) of a seed."""
        return self.path / "seeds" / str(seed)

    def run(self, task: Task) -> Path:
        """The run folder that a task works in."""
        name = ALL if task.method == FULL else task.strategy or START
        return self.path / "runs" / str(task.seed) / task.method / name

    def row(self, *, method: str, strategy: str, seed: int, round_index: int) -> Path:
        """One row of the results."""
        return self.cells / f"{method}.{strategy}.s{seed}.r{round_index}.json"

    @property
    def diagnoses(self) -> Path:
        """One JSON file per queried round: what its model and questions were worth."""
        return self.path / "diagnoses"

    @property
    def diagnostics(self) -> Path:
        """All of these as CSV."""
        return self.path / "diagnostics.csv"

    def diagnosis(self, task: Task, round_index: int) -> Path:
        """One queried round."""
        name = f"{task.method}.{task.strategy}.s{task.seed}.r{round_index}.json"
        return self.diagnoses / name

    def error(self, task: Task) -> Path:
        """The traceback of a task."""
        return self.errors / f"{task.method}.{task.strategy or START}.s{task.seed}.txt"


def wanted_tasks(simulate: SimulateConfig, only: Sequence[str] = ()) -> list[Task]:
    """Cells in the order of work: as the settings list them, all seeds of one before the next.

    Raises:
        RequestError: a word of `only` names no cell.
    """
    tasks: dict[Task, None] = {}
    for cell in simulate.cells:
        if cell.method == FOREST:
            continue
        for strategy in cell.strategies or ("",):
            for seed in simulate.seeds:
                tasks[Task(method=cell.method, strategy=strategy, seed=seed)] = None
    return _only(list(tasks), only)


def _only(tasks: list[Task], only: Sequence[str]) -> list[Task]:
    chosen: list[Task] = []
    for word in only:
        method, _, strategy = word.partition("/")
        found = [
            task
            for task in tasks
            if task.method == method and (not strategy or task.strategy == strategy)
        ]
        if not found:
            names = dict.fromkeys(f"{t.method}/{t.strategy}".rstrip("/") for t in tasks)
            raise RequestError(f"--only {word}: no such cell; there are: {', '.join(names)}")
        chosen += [task for task in found if task not in chosen]
    return chosen if only else tasks


def row_files(folder: Folder, simulate: SimulateConfig, task: Task) -> list[Path]:
    """The rows that a cell gives, those of the random forest beside it included."""
    if task.method == FULL:
        return [folder.row(method=FULL, strategy=ALL, seed=task.seed, round_index=0)]
    methods = [task.method, *([FOREST] if has_forest(simulate, task) else [])]
    return [
        folder.row(method=method, strategy=task.strategy, seed=task.seed, round_index=index)
        for index in range(simulate.rounds)
        for method in methods
    ]


def has_forest(simulate: SimulateConfig, task: Task) -> bool:
    """Whether a random forest learns beside a task."""
    return task.method == OURS and any(cell.method == FOREST for cell in simulate.cells)


def is_done(folder: Folder, simulate: SimulateConfig, task: Task) -> bool:
    """Whether all rows of a cell are there."""
    return all(path.exists() for path in row_files(folder, simulate, task))


def with_starts(tasks: Sequence[Task]) -> Iterator[Task]:
    """The tasks, with the rounds 0 that they begin from before the first that needs them."""
    given: set[Task] = set()
    for number, task in enumerate(tasks):
        same = [t for t in tasks[number:] if t.method == task.method]
        for start in (other.before for other in same):
            if start is not None and start not in given:
                given.add(start)
                yield start
        yield task


def claim(
    folder: Folder, manifest: Manifest, config: Config, simulate: SimulateConfig, *, overwrite: bool
) -> None:
    """Make the folder this simulation's own; more cells and seeds may be asked of it later.

    Raises:
        RequestError: it holds another simulation, or something else.
    """
    made: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "request": _request(manifest, config, simulate),
        "methods": _methods(simulate),
    }
    if folder.record.exists() and not overwrite:
        found = read_record(folder.record, "request", "methods")
        asked = found["request"] | {"config": _today(found["request"]["config"], folder.record)}
        differing = _first_difference(asked, made["request"])
        differing = differing or _first_difference(found["methods"], made["methods"], known=True)
        if differing:
            raise RequestError(
                f"{folder.path}: holds a simulation with another {differing}; choose another "
                "folder, or begin anew with --overwrite"
            )
        made["methods"] = {**found["methods"], **_methods(simulate)}
    elif folder.path.exists() and any(folder.path.iterdir()):
        if not folder.record.exists():
            raise RunError(f"{folder.path}: is no simulation and not empty; choose another folder")
        _empty(folder)
    write_json(folder.record, made)


def _today(config: Mapping[str, Any], record: Path) -> dict[str, Any]:
    """Settings with those that did not exist when they were written, at their defaults."""
    return config_to_dict(config_from_dict(config, where=str(record)))


def _empty(folder: Folder) -> None:
    """Delete what another simulation made, tables and pictures included; its record stays."""
    for name in ("cells", "diagnoses", "runs", "seeds", "errors"):
        shutil.rmtree(folder.path / name, ignore_errors=True)
    for name in DERIVED:
        (folder.path / name).unlink(missing_ok=True)


def _request(manifest: Manifest, config: Config, simulate: SimulateConfig) -> dict[str, Any]:
    section = simulation_to_dict(simulate)
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "config": config_to_dict(config),
                "simulate": {key: value for key, value in section.items() if key not in GROWING},
                "manifest": dump_manifest(manifest),
            }
        )
    )
    return plain


def _methods(simulate: SimulateConfig) -> dict[str, Any]:
    names = {cell.method for cell in simulate.cells} - {FOREST, FULL}
    return {name: dict(find_method(name).settings) for name in sorted(names)}


def _first_difference(
    found: Mapping[str, Any], made: Mapping[str, Any], *, known: bool = False
) -> str | None:
    """Dotted name of the first key that differs; `known`: among keys of both only."""
    for key in sorted({*found, *made}):
        if known and not (key in found and key in made):
            continue
        old, new = found.get(key), made.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = _first_difference(old, new)
            if inner:
                return f"{key}.{inner}"
        elif old != new:
            return key
    return None
