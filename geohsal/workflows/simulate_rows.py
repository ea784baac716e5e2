"""Results of a simulation as rows: one file per row, and tidy tables of all of them."""

import csv
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import geohsal
from geohsal import __version__
from geohsal.errors import DataError
from geohsal.io.atomic import read_record, replacing, write_json
from geohsal.workflows.context import pick_device

FORMAT_VERSION = 1
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What made a row: commit (or version) and machine."""

    commit: str
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method, strategy, seed and round.

    `spent_pixels` were asked about until then (cells drawn to begin with included),
    `labelled_pixels` are all that training could read, the manifest's included. `spent_share` is
    of the valid train pixels. `spent_ha` is None for scenes without a position on Earth;
    `spent_min` are minutes by the cost model. `regions` were asked about until then. `iou` is by
    class name, None where the class is absent from the reference.
    """

    dataset: str
    method: str
    strategy: str
    seed: int
    round: int
    spent_pixels: int
    spent_share: float
    labelled_pixels: int
    spent_ha: float | None
    spent_min: float | None
    regions: int | None
    oa: float
    miou: float
    macro_f1: float
    kappa: float
    iou: dict[str, float | None]
    train_seconds: float
    commit: str
    machine: str

    def of(self, strategy: str) -> "Row":
        """The same result as a strategy's: round 0 belongs to all of them."""
        return replace(self, strategy=strategy)

    @property
    def place(self) -> tuple[str, str, str, int, int]:
        """What rows are sorted by."""
        return self.dataset, self.method, self.strategy, self.seed, self.round

    def to_dict(self) -> dict[str, Any]:
        """Plain values, numbers rounded, one column per class."""
        values = rounded(asdict(self))
        per_class: dict[str, float | None] = values.pop("iou")
        last = {name: values.pop(name) for name in ("train_seconds", "commit", "machine")}
        last["train_seconds"] = round(float(last["train_seconds"]), 1)
        iou = {
            f"iou_{name}": None if value is None else round(value, DIGITS)
            for name, value in per_class.items()
        }
        return {**values, **iou, **last}


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, numbers rounded for tables."""
    return {
        name: round(value, DIGITS) if isinstance(value, float) else value
        for name, value in values.items()
    }


def origin_of(device: str) -> Origin:
    """The commit of a source tree, else the version; processor, cores and GPU in use."""
    chosen = pick_device(device)
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    parts = [model, f"{os.cpu_count()} cores"]
    if chosen.type == "cuda":
        parts.append(torch.cuda.get_device_name(chosen))
    return Origin(commit=_commit(), machine=", ".join(parts))


def _commit() -> str:
    """Short hash, with a + where tracked files differ; the version outside a source tree."""
    root = Path(geohsal.__file__).parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return f"v{__version__}"

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return f"v{__version__}"
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def write_row(path: Path, row: Row) -> None:
    """Write one row whole or not at all."""
    iou = list(row.iou.items())  # a list keeps the order of classes
    write_json(path, {"format_version": FORMAT_VERSION, **asdict(row), "iou": iou})


def read_row(path: Path) -> Row:
    """One row.

    Raises:
        DataError: the file is missing or damaged.
    """
    values = read_record(path, "dataset", "iou")
    values.pop("format_version", None)
    try:
        return Row(**{**values, "iou": dict(values["iou"])})
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and run the same again") from None


def read_rows(folder: Path) -> list[Row]:
    """All rows of a folder, sorted by method, strategy, seed and round."""
    return sorted(map(read_row, folder.glob("*.json")), key=lambda row: row.place)


def write_tables(rows: Sequence[Row], csv_path: Path, parquet_path: Path) -> None:
    """Write the rows as CSV and Parquet, each whole or not at all."""
    records = [row.to_dict() for row in rows]
    write_csv(csv_path, records)
    frame = pd.DataFrame.from_records(records)
    for name in ("regions",):
        frame[name] = frame[name].astype("Int64")
    for name in ("spent_ha", "spent_min"):
        frame[name] = frame[name].astype("float64")
    with replacing(parquet_path) as part:
        frame.to_parquet(part, index=False)


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records of the same keys; None becomes an empty field."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
