"""Rows of a benchmark that join those in the tree."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from bench_set import merge_rows, published, show

from geohsal.workflows.simulate_rows import Row, write_tables

EXAMPLE = Row(
    dataset="town", method="geohsal", strategy="plar", seed=3, round=1, spent_pixels=20,
    spent_share=0.01, labelled_pixels=19, spent_ha=None, spent_min=2.5, regions=4, oa=0.9,
    miou=0.5, macro_f1=0.6, kappa=0.7, iou={"water": 0.25, "bare soil": None},
    train_seconds=8.0, commit="0123456", machine="two cores",
)  # fmt: skip


def write(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(strategy: str, seed: int, number: int, **values: object) -> dict[str, object]:
    place = {"dataset": "town", "method": "geohsal", "strategy": strategy}
    return place | {"seed": seed, "round": number} | values


def test_a_part_replaces_its_own_rows_alone(tmp_path: Path) -> None:
    into = tmp_path / "set.csv"
    first = write(tmp_path / "a.csv", row("plar", 10, 0, miou=0.1), row("plar", 9, 0, miou=0.2))
    merge_rows(first, into)
    part = write(tmp_path / "b.csv", row("plar", 9, 0, miou=0.3, f1=1), row("emd", 9, 0, miou=0.4))
    merge_rows(part, into)
    with into.open() as stream:
        found = list(csv.DictReader(stream))
    told = [(r["strategy"], r["seed"], r["miou"], r["f1"]) for r in found]
    assert told == [("emd", "9", "0.4", ""), ("plar", "9", "0.3", "1"), ("plar", "10", "0.1", "")]


def test_a_published_table_gives_the_rows_back(tmp_path: Path) -> None:
    known = EXAMPLE
    full = replace(
        known, method="full", strategy="all", spent_min=None, regions=None, iou={"water": 0.5}
    )
    full.iou["bare soil"] = 0.0
    write_tables([known, full], tmp_path / "rows.csv", tmp_path / "rows.parquet")
    assert published(tmp_path / "rows.csv") == [known, full]


def test_figures_and_curves_are_of_all_published_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        replace(EXAMPLE, strategy=strategy, seed=seed, round=number, spent_share=0.01 * number)
        for strategy, seeds in (("plar", (0, 1, 2)), ("ripu", (0, 1)))
        for seed in seeds
        for number in (0, 1)
    ]
    write_tables(rows, tmp_path / "town.csv", tmp_path / "town.parquet")
    show(tmp_path, "town")
    said = capsys.readouterr().out
    assert "| geohsal | plar | 3 |" in said
    assert "| geohsal | ripu | 2 |" in said
    assert (tmp_path / "curves_town.png").stat().st_size > 10_000
