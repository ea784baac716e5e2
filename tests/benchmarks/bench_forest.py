"""geohsal beside a random forest on the same labels and test blocks, before and after queries.

    python tests/benchmarks/bench_forest.py DATA [--seeds 3] [--budget 60regions] [--out FILE.csv]

DATA is the folder of the real scenes. Each seed draws other blocks, other initial weights and
another forest. The forest sees the four bands and their mean and standard deviation in 5x5 and
13x13 windows. One row per seed, round and method is appended to the results.
"""

import argparse
import csv
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from real_scenes import write_zion

from geohsal.config import Config, load_config
from geohsal.workflows.answer import answer
from geohsal.workflows.context import open_context
from geohsal.workflows.evaluate import evaluate
from geohsal.workflows.ingest import ingest
from geohsal.workflows.query import query
from geohsal.workflows.simulate_forest import measure_forest
from geohsal.workflows.tile import tile
from geohsal.workflows.train import train

RESULTS = Path(__file__).parent / "results" / "forest_zion.csv"
COLUMNS = (
    "commit", "machine", "dataset", "method", "strategy", "seed", "round",
    "spent_pixels", "spent_share", "labelled_pixels", "oa", "miou", "macro_f1", "seconds",
)  # fmt: skip


def bench(
    data: Path, work: Path, *, seed: int, budget: str, config: Config
) -> list[dict[str, object]]:
    """Rows of one seed: two rounds, two methods."""
    run = work / f"run_{seed}"
    tile(write_zion(work / f"zion_{seed}.yaml", data, seed=seed), run, config=config)
    rows: list[dict[str, object]] = []
    spent = 0
    for index in range(2):
        began = time.monotonic()
        train(run)
        seconds = time.monotonic() - began
        mine = evaluate(run)
        began = time.monotonic()
        forest = measure_forest(run, round_index=index, seed=seed, jobs=-1)
        theirs, labelled = forest.accuracy, forest.labelled_pixels
        common = {
            "dataset": "zion_landsat", "strategy": "plar", "seed": seed, "round": index,
            "spent_pixels": spent, "labelled_pixels": labelled,
            "spent_share": round(spent / open_context(run).record.train_valid_pixels, 6),
        }  # fmt: skip
        for method, found, took in (
            ("geohsal", mine, seconds), ("forest", theirs, time.monotonic() - began)
        ):  # fmt: skip
            rows.append(
                common
                | {"method": method, "oa": round(found.oa, 4), "miou": round(found.miou, 4),
                   "macro_f1": round(found.macro_f1, 4), "seconds": round(took, 1)}
            )  # fmt: skip
        if index == 0:
            asked = query(run, budget=budget)
            spent = asked.pixels
            reviewed = work / f"reviewed_{seed}.gpkg"
            answer(run, asked.files[0], reviewed, seed=seed)
            ingest(run, [reviewed])
    return rows


def main() -> None:
    """Append the rows and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="60regions")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            config = load_config("cpu-small", overrides=[*options.overrides, f"seed={seed}"])
            rows += bench(
                options.data, Path(folder), seed=seed, budget=options.budget, config=config
            )
            for row in rows[-4:]:
                print(
                    {
                        key: row[key]
                        for key in ("seed", "round", "method", "oa", "miou", "macro_f1", "seconds")
                    }
                )
    fresh = not options.out.exists()
    with options.out.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if fresh:
            writer.writeheader()
        machine = f"{platform.machine()}, {os.cpu_count()} cores, no GPU"
        writer.writerows({"commit": commit, "machine": machine} | row for row in rows)
    for index in range(2):
        for method in ("geohsal", "forest"):
            own = [row for row in rows if row["round"] == index and row["method"] == method]
            figures = {
                name: np.array([float(str(row[name])) for row in own])
                for name in ("oa", "miou", "macro_f1")
            }
            text = ", ".join(f"{k} {v.mean():.3f} +- {v.std():.3f}" for k, v in figures.items())
            print(f"round {index} {method}: {text}")


if __name__ == "__main__":
    main()
