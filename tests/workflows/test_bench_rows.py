"""Rows of a benchmark that join those in the tree."""

import csv
from pathlib import Path

from bench_set import merge_rows


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
    assert merge_rows(first, into)
    part = write(tmp_path / "b.csv", row("plar", 9, 0, miou=0.3, f1=1), row("emd", 9, 0, miou=0.4))
    assert not merge_rows(part, into)
    with into.open() as stream:
        found = list(csv.DictReader(stream))
    told = [(r["strategy"], r["seed"], r["miou"], r["f1"]) for r in found]
    assert told == [("emd", "9", "0.4", ""), ("plar", "9", "0.3", "1"), ("plar", "10", "0.1", "")]
