"""Rows of a benchmark that join those in the tree."""

import csv
from pathlib import Path

from bench_set import merge_rows, published

from geohsal.workflows.simulate_rows import Row, write_tables


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
    known = Row(
        dataset="town", method="geohsal", strategy="plar", seed=3, round=1, spent_pixels=20,
        spent_share=0.01, labelled_pixels=19, spent_ha=None, spent_min=2.5, regions=4, oa=0.9,
        miou=0.5, macro_f1=0.6, kappa=0.7, iou={"water": 0.25, "bare soil": None},
        train_seconds=8.0, commit="0123456", machine="two cores",
    )  # fmt: skip
    write_tables([known], tmp_path / "rows.csv", tmp_path / "rows.parquet")
    assert published(tmp_path / "rows.csv") == [known]
