"""Planning and selection for 10^4 to 10^6 units: seconds and peak memory, beside plain references.

    python tests/benchmarks/bench_planning.py [--sizes 10000 100000 1000000] [--repeats 3]
        [--budget 200regions] [--out FILE.csv]

Units are generated: cells of 32 pixels on square scenes, with 64 features each. The references do
the same kind of work without geohsal: an Arrow table of scene, row and column; pyarrow's
`select_k_unstable` for the 5000 best scores; score per cost in descending order until the budget
is spent. A step stands beside the reference of its kind, and `times` is the quotient. Every step
and size runs in a process of its own, so that `peak_mb` (what the step adds to the memory in use
before it, at its highest) is its own. One row is appended per step and size.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measure import RESULTS, append_rows, commit, cpu_machine

from geohsal.config import QueryConfig
from geohsal.geo.budget import parse_budget
from geohsal.io.parts import part_path, write_part
from geohsal.io.plan import SceneUnits, make_plan, read_plan, write_plan
from geohsal.query.regions import Candidates
from geohsal.query.selection import select
from geohsal.workflows.engine import missing

COLUMNS = (
    "commit", "machine", "step", "reference", "units", "budget", "seconds", "least", "greatest",
    "times", "peak_mb",
)  # fmt: skip
REGION_PX = 32
FEATURES = 64
SCENE_CELLS = 100
"""Cells along a side of a scene: 10^4 units a scene."""
TILE_CELLS = 8
CHUNK_UNITS = 1000
TOP = 5000


def units(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene, row and column (in cells) of so many units."""
    number = np.arange(count)
    scene, rest = np.divmod(number, SCENE_CELLS**2)
    row, col = np.divmod(rest, SCENE_CELLS)
    return scene.astype(np.int32), row.astype(np.int32), col.astype(np.int32)


def candidates(count: int) -> tuple[Candidates, np.ndarray]:
    """Regions of mixed worth, three in ten of none, and the tile of each."""
    rng = np.random.default_rng(0)
    scene, row, col = units(count)
    names = tuple(f"scene_{number:05d}" for number in range(int(scene.max()) + 1))
    zeros = np.zeros(count, np.int32)
    side = np.full(count, REGION_PX, np.int32)
    worth = np.maximum(rng.gamma(2.0, 60.0, count) - 60.0, 0.0)
    table = Candidates(
        scene_ids=names, unit="grid", region_px=REGION_PX, scene=scene, row=row, col=col,
        number=zeros, atom=row * SCENE_CELLS + col, top=row * REGION_PX, left=col * REGION_PX,
        cell_height=side, cell_width=side, pixels=np.full(count, REGION_PX**2, np.int64),
        score_sum=worth, mean_error=rng.random(count), ambiguous_share=worth / REGION_PX**2 / 2,
        novel_share=worth / REGION_PX**2 / 2, margin=rng.random(count),
        teacher_class=rng.integers(0, 6, count).astype(np.int16),
        plar_class=rng.integers(0, 6, count).astype(np.int16),
        ambiguous=rng.integers(0, 6, (count, 2)).astype(np.int16),
        answers=rng.integers(1, 9, count).astype(np.int32),
        features=_features(rng, count), embeddings=np.zeros((count, 0), np.float32),
    )  # fmt: skip
    per_scene = -(-SCENE_CELLS // TILE_CELLS)
    number = (scene * per_scene + row // TILE_CELLS) * per_scene + col // TILE_CELLS
    tiles = np.array([f"tile_{place:07d}" for place in range(int(number.max()) + 1)])
    return table, tiles[number]


def _features(rng: np.random.Generator, count: int) -> np.ndarray:
    """Twelve clusters, as classes make them."""
    centres = rng.normal(scale=2.0, size=(12, FEATURES)).astype(np.float32)
    spread = rng.standard_normal((count, FEATURES), dtype=np.float32)
    return centres[rng.integers(0, 12, count)] + spread


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a step works on."""

    count: int
    budget: str
    folder: Path


Step = Callable[[Case], Callable[[], object]]
"""Makes ready what a step needs, and gives the call that is timed."""


def arrow_plan(case: Case) -> Callable[[], object]:
    scene, row, col = units(case.count)
    names = [f"scene_{number:05d}" for number in range(int(scene.max()) + 1)]
    path = case.folder / "plain.parquet"

    def call() -> object:
        column = pa.DictionaryArray.from_arrays(pa.array(scene), pa.array(names))
        pq.write_table(pa.table({"scene": column, "row": row, "col": col}), path)
        return pq.read_table(path).num_rows

    return call


def _plan(case: Case, chunk_units: int = CHUNK_UNITS) -> Any:
    scene, row, col = units(case.count)
    side = np.full(case.count, REGION_PX)
    windows = np.stack([row * REGION_PX, col * REGION_PX, side, side], axis=1)
    edges = np.searchsorted(scene, np.arange(int(scene.max()) + 2))
    scenes = [
        SceneUnits(
            scene_id=f"scene_{number:05d}", fingerprint=f"{number:032d}", windows=windows[low:high]
        )
        for number, (low, high) in enumerate(pairwise(edges))
    ]
    return make_plan("query", request="r" * 64, scenes=scenes, chunk_units=chunk_units)


def plan(case: Case) -> Callable[[], object]:
    path = case.folder / "plan.parquet"

    def call() -> object:
        write_plan(path, _plan(case))
        return len(read_plan(path))

    return call


def _resume(case: Case, chunk_units: int) -> Callable[[], object]:
    """All parts but one in ten are there; each holds one small array."""
    ready = _plan(case, chunk_units)
    parts = case.folder / "parts"
    for place, chunk_id in enumerate(ready.chunk_ids):
        if place % 10:
            write_part(part_path(parts, chunk_id), {"a": np.zeros(10)}, {"units": chunk_units})
    return lambda: len(missing(ready, parts))


def resume(case: Case) -> Callable[[], object]:
    return _resume(case, CHUNK_UNITS)


def resume_fine(case: Case) -> Callable[[], object]:
    return _resume(case, CHUNK_UNITS // 10)


def select_k(case: Case) -> Callable[[], object]:
    table = pa.table({"score": np.random.default_rng(0).random(case.count)})
    return lambda: pc.select_k_unstable(table, k=TOP, sort_keys=[("score", "descending")])


def greedy(case: Case) -> Callable[[], object]:
    table, _ = candidates(case.count)
    costs = 20.0 + 5.0 * table.answers
    amount = 0.01 * costs.sum()

    def call() -> object:
        order = np.lexsort((np.arange(case.count), -table.score_sum / costs))
        return order[: int(np.searchsorted(np.cumsum(costs[order]), amount, side="right"))]

    return call


def _select(case: Case, **settings: Any) -> Callable[[], object]:
    table, tiles = candidates(case.count)
    budget = parse_budget(case.budget, pool_pixels=int(table.pixels.sum()))
    costs = np.ones(case.count) if budget.unit == "regions" else 20.0 + 5.0 * table.answers
    strategy = settings.pop("strategy", "plar")
    return lambda: select(
        table,
        costs,
        budget=budget,
        config=QueryConfig(strategy=strategy),
        seed=0,
        tiles=tiles,
        class_names=list("abcdef"),
        **settings,
    )


def diverse(case: Case) -> Callable[[], object]:
    return _select(case)


def diverse_unproven(case: Case) -> Callable[[], object]:
    return _select(case, proven=False)


def best_first(case: Case) -> Callable[[], object]:
    return _select(case, strategy="emd")


STEPS: dict[str, tuple[Step, str]] = {
    "arrow_plan": (arrow_plan, ""),
    "select_k": (select_k, ""),
    "greedy": (greedy, ""),
    "plan": (plan, "arrow_plan"),
    "resume": (resume, "arrow_plan"),
    "resume_fine": (resume_fine, "arrow_plan"),
    "select_emd": (best_first, "greedy"),
    "select_plar": (diverse, "greedy"),
    "select_plar_unproven": (diverse_unproven, "greedy"),
}
"""Each step with its reference; references first."""


def one(step: str, case: Case, repeats: int) -> dict[str, Any]:
    """Seconds and memory of one step, in this process."""
    call = STEPS[step][0](case)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = _memory("VmRSS")
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_mb": max(0.0, _memory("VmHWM") - before)}


def _memory(name: str) -> float:
    """Memory in use now (VmRSS) or at its highest (VmHWM), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measure(step: str, count: int, budget: str, repeats: int) -> dict[str, Any]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--step", step, "--sizes", str(count)]
    words += ["--budget", budget, "--repeats", str(repeats)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, print, append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", default="200regions")
    parser.add_argument("--step", choices=STEPS, help="one step, here, as JSON")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--out", type=Path, default=RESULTS / "planning.csv")
    options = parser.parse_args()
    if options.step:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(count=options.sizes[0], budget=options.budget, folder=Path(folder))
            print(json.dumps(one(options.step, case, options.repeats)))
        return
    rows: list[dict[str, Any]] = []
    for count in options.sizes:
        medians: dict[str, float] = {}
        for step in options.steps:
            found = measure(step, count, options.budget, options.repeats)
            medians[step] = statistics.median(found["seconds"])
            reference = STEPS[step][1]
            quotient = medians[step] / medians[reference] if reference in medians else None
            rows.append({
                "commit": commit(), "machine": cpu_machine(), "step": step, "reference": reference,
                "units": count, "budget": options.budget, "seconds": round(medians[step], 4),
                "least": round(min(found["seconds"]), 4),
                "greatest": round(max(found["seconds"]), 4),
                "times": None if quotient is None else round(quotient, 2),
                "peak_mb": round(found["peak_mb"], 1),
            })  # fmt: skip
            print(rows[-1], flush=True)
    append_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
