"""One set of the benchmark: its manifest, the simulation that ships for it, its rows in the tree.

    python tests/benchmarks/bench_set.py SET DATA -o DIR [--jobs N] [--set KEY=VALUE] [--only CELL]

SET is synthetic, zion, dubai or dubai_cpu; DATA the folder of the real scenes (not read for
synthetic). The same command goes on where it stopped. Rows join those of the set in
tests/benchmarks/results/<SET>.csv, or in --results: a row of the same cell, seed and round is
replaced, others stay (delete the file to begin anew). Picture and figures are of all rows then.
"""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from lite0_weights import fetch
from measure import RESULTS
from real_scenes import halve_dubai, write_dubai_oracle, write_zion

from geohsal.config.simulation import load_simulation
from geohsal.io.atomic import replacing
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.progress import Lines
from geohsal.workflows.simulate import simulate
from geohsal.workflows.simulate_picture import draw_curves
from geohsal.workflows.simulate_rows import Row
from geohsal.workflows.simulate_summary import summary_lines, summary_of


def _synthetic(data: Path, folder: Path) -> Path:
    return write_landscape(folder / "landscape")


def _zion(data: Path, folder: Path) -> Path:
    return write_zion(folder / "zion.yaml", data)


def _dubai(data: Path, folder: Path) -> Path:
    return write_dubai_oracle(folder / "dubai.yaml", data / "dubai")


def _dubai_cpu(data: Path, folder: Path) -> Path:
    halved = halve_dubai(data, folder / "halved")
    return write_dubai_oracle(folder / "dubai.yaml", halved)


Writer = Callable[[Path, Path], Path]

SETS: dict[str, tuple[str, Writer]] = {
    "synthetic": ("bench_synthetic_cpu", _synthetic),
    "zion": ("bench_zion_cpu", _zion),
    "dubai": ("bench_dubai", _dubai),
    "dubai_cpu": ("bench_dubai_cpu", _dubai_cpu),
}
"""Shipped settings, and what writes the manifest from (DATA, folder)."""

PRETRAINED = {"dubai_cpu"}
"""Sets whose encoder begins with the weights of `lite0_weights`, fetched into DIR."""

_TYPES: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    int | None: int,
    float | None: float,
}
"""How a field of a row is read."""

KEYS = ("dataset", "method", "strategy", "seed", "round")
"""What tells rows apart, and what they are sorted by."""


def merge_rows(new: Path, into: Path) -> None:
    """Put the rows of one table into another, by `KEYS`.

    Columns that only one table has are kept and left empty in the rows of the other.
    """
    found = [*_read(into), *_read(new)] if into.exists() else _read(new)
    columns = list(dict.fromkeys(name for row in found for name in row))
    rows = {_place(row): row for row in found}
    with replacing(into) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[place] for place in sorted(rows))


def published(table: Path) -> list[Row]:
    """The rows of a table in the tree."""
    return [_row(record) for record in _read(table)]


def _row(record: Mapping[str, str]) -> Row:
    """One row of a table, in which an empty field is None."""
    own = {name: value or None for name, value in record.items()}
    values: dict[str, Any] = {
        field.name: _TYPES[field.type](own[field.name]) if own[field.name] else None
        for field in fields(Row)
        if field.name != "iou"
    }
    iou = {name: value for name, value in own.items() if name.startswith("iou_")}
    return Row(
        **values,
        iou={name[4:]: None if value is None else float(value) for name, value in iou.items()},
    )


def show(results: Path, name: str) -> None:
    """Draw the curves of all rows of a set, and print their figures."""
    rows = published(results / f"{name}.csv")
    with tempfile.TemporaryDirectory() as folder:
        for picture in draw_curves(rows, Path(folder)):
            if picture.name == "curves.png":
                shutil.copyfile(picture, results / f"curves_{name}.png")
    rounds = 1 + max(row.round for row in rows)
    summary = summary_of(rows, rounds=rounds, seeds=[])
    print(*summary_lines(summary), sep="\n")


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _place(row: Mapping[str, str]) -> tuple[str, str, str, int, int]:
    dataset, method, strategy, seed, number = (row[key] for key in KEYS)
    return dataset, method, strategy, int(seed), int(number)


def main() -> None:
    """Run the set and put its results into the tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    name, write = SETS[options.set]
    options.out.mkdir(parents=True, exist_ok=True)
    overrides = options.overrides
    if options.set in PRETRAINED:
        weights = fetch(options.out.resolve() / "lite0.safetensors")
        overrides = [f"model.weights={weights}", *overrides]
    config, simulation = load_simulation(name, overrides=overrides)
    summary = simulate(
        write(options.data.resolve(), options.out.resolve()),
        options.out / "simulation",
        config=config,
        simulation=simulation,
        jobs=options.jobs,
        only=options.only,
        device=options.device,
        report=print,
        progress=Lines(lambda text: click.echo(text, err=True)),
    )
    options.results.mkdir(parents=True, exist_ok=True)
    merge_rows(summary.results, options.results / f"{options.set}.csv")
    diagnostics = summary.results.with_name("diagnostics.csv")
    if diagnostics.exists():
        merge_rows(diagnostics, options.results / f"diagnostics_{options.set}.csv")
    show(options.results, options.set)


if __name__ == "__main__":  # workers import this file
    main()
