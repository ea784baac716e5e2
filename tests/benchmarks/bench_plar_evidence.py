"""How often PLAR is right where it disagrees with the teacher, by what its statistics come from.

    python tests/benchmarks/bench_set.py synthetic DATA -o DIR --set simulate.keep=models ...
    python tests/benchmarks/bench_plar_evidence.py DIR

reads the last trained round of every run of geohsal on random questions in DIR, whose models were
kept and whose scenes have truth. The network stays as it is; class statistics come from the regions
that it learned from (`learned`), from those and the withheld ones (`all`, as geohsal does), from
the withheld ones (`withheld`), or from as many cells drawn by lot from the pool with their truth,
whose labels neither had seen (`new`). Other pool pixels are judged, without gates, margins and
class shares: the fifth that the error mask doubts most. Flips (Q's best class is not the teacher's)
rank by their lead; `flip_share` is of all pool pixels judged. One row per seed, source and part of
the flips is appended to --out.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import RESULTS, append_rows, commit, cpu_machine
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.data.index import LabelledRegion
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.run import Run
from geohsal.refine.class_scores import class_scores
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics, thin
from geohsal.training.inference import ChunkOutput
from geohsal.training.model_io import load_model
from geohsal.workflows.context import RunContext, open_context
from geohsal.workflows.diagnose_read import read_truths
from geohsal.workflows.labelled import labelled_regions

COLUMNS = (
    "commit", "machine", "dataset", "seed", "round", "regions", "statistics", "flips",
    "flip_share", "right", "teacher_right",
)  # fmt: skip
DOUBTED = 0.2
PARTS = {"every": 1.0, "top half": 0.5, "top tenth": 0.1}
PIXELS = 40_000
"""Pool pixels that are judged, of each scene."""


def pixels_of(
    output: ChunkOutput, rows: NDArray[np.integer], cols: NDArray[np.integer], **known: Any
) -> LabelledPixels:
    """Pixels of a scene as the networks see them."""
    row, col = torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(cols.astype(np.int64))
    return LabelledPixels(
        features=output.features[:, row, col].T.numpy(),
        teacher=output.teacher[row, col].numpy(),
        confidence=output.confidence[row, col].numpy(),
        error=output.error_logits[row, col].sigmoid().numpy(),
        **known,
    )


def labelled(
    output: ChunkOutput, regions: list[LabelledRegion], withheld: frozenset[str], first: int
) -> Iterator[LabelledPixels]:
    """The sampled pixels of a scene's labelled regions."""
    for number, region in enumerate(regions, start=first):
        shape = len(region.classes)
        yield pixels_of(
            output, *region.pixels.T, label=region.classes.astype(np.int64),
            region=np.full(shape, number), withheld=np.full(shape, region.key in withheld),
        )  # fmt: skip


def drawn(
    output: ChunkOutput,
    truth: NDArray[np.uint8],
    *,
    side: int,
    count: int,
    first: int,
    rng: np.random.Generator,
) -> tuple[list[LabelledPixels], NDArray[np.bool_]]:
    """Cells of the pool by lot with their truth, and which pixels (row, col) they hold."""
    down, across = truth.shape[0] // side, truth.shape[1] // side
    taken, found = np.zeros(truth.shape, dtype=np.bool_), []
    for place in rng.permutation(down * across).tolist():
        row, col = divmod(place, across)
        area = (slice(side * row, side * (row + 1)), slice(side * col, side * (col + 1)))
        if (truth[area] == IGNORE_INDEX).any():
            continue
        taken[area] = True
        rows, cols = np.mgrid[area]
        found.append(
            pixels_of(
                output,
                rows.ravel(),
                cols.ravel(),
                label=truth[area].ravel().astype(np.int64),
                region=np.full(side * side, first + len(found)),
                withheld=np.ones(side * side, dtype=np.bool_),
            )
        )
        if len(found) == count:
            break
    return found, taken


def joined(parts: list[LabelledPixels]) -> LabelledPixels:
    """All pixels of the parts."""
    names = ("features", "label", "region", "withheld", "teacher", "confidence", "error")
    return LabelledPixels(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def collect(
    context: RunContext, round_index: int, truths: dict[str, NDArray[np.uint8]], *, seed: int
) -> dict[str, LabelledPixels]:
    """Pixels by source of statistics, and those to be judged (`pool`)."""
    model = load_model(context.run.round(round_index).model_dir)
    predictor = model.predictor(torch.device("cpu"))
    regions, withheld = labelled_regions(context, round_index)
    rng = np.random.default_rng(seed)
    known: list[LabelledPixels] = []
    fresh: list[LabelledPixels] = []
    pool: list[LabelledPixels] = []
    for scene_id in context.scenes_with("train"):
        own = [region for region in regions if region.scene_id == scene_id]
        with context.open(scene_id) as scene:
            whole = Window(0, 0, scene.scene.width, scene.scene.height)
            output = predictor.predict(scene, whole)
            free = scene.trainable(whole) & (scene.labels(whole)[0] == IGNORE_INDEX)
        known += labelled(output, own, withheld, first=len(known))
        truth = np.where(free, truths[scene_id], np.uint8(IGNORE_INDEX))
        share = float(free.mean() * free.size) / context.record.train_valid_pixels
        cells, taken = drawn(
            output, truth, side=context.config.query.region_px, first=len(fresh), rng=rng,
            count=max(1, round(share * len(regions))),
        )  # fmt: skip
        fresh += cells
        rows, cols = np.nonzero((truth != IGNORE_INDEX) & ~taken)
        some = rng.permutation(len(rows))[:PIXELS]
        rows, cols = rows[some], cols[some]
        nothing = np.zeros(len(rows), dtype=np.int64)
        pool.append(
            pixels_of(
                output,
                rows,
                cols,
                label=truth[rows, cols].astype(np.int64),
                region=nothing,
                withheld=nothing.astype(np.bool_),
            )
        )
    every = joined(known)
    return {
        "learned": every.take(~every.withheld),
        "withheld": every.take(every.withheld),
        "all": every,
        "new": joined(fresh),
        "pool": joined(pool),
    }


def flips(statistics: ClassStatistics, pool: LabelledPixels, config: Any) -> list[dict[str, Any]]:
    """What becomes of the doubted pixels under these statistics, by part of the flips."""
    doubted = pool.take(pool.error >= np.quantile(pool.error, 1 - DOUBTED))
    q = class_scores(statistics, doubted.features, config).q
    best = np.sort(q, axis=1)
    lead, chosen = best[:, 1] - best[:, 0], q.argmin(axis=1)
    rows = []
    for name, share in PARTS.items():
        flip = chosen != doubted.teacher
        if flip.any():
            flip &= lead >= np.quantile(lead[flip], 1 - share)
        right, before = chosen == doubted.label, doubted.teacher == doubted.label
        rows.append(
            {
                "flips": name,
                "flip_share": round(float(flip.sum()) / len(pool), 4),
                "right": round(float(right[flip].mean()), 3) if flip.any() else "",
                "teacher_right": round(float(before[flip].mean()), 3) if flip.any() else "",
            }
        )
    return rows


def main() -> None:
    """Append the rows of all runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="synthetic-landscape")
    parser.add_argument("--out", type=Path, default=RESULTS / "plar_evidence.csv")
    options = parser.parse_args()
    for run_dir in sorted(options.folder.glob("simulation/runs/*/geohsal/random")):
        context = open_context(run_dir)
        trained = [
            round_.index
            for round_ in map(context.run.round, range(context.run.current.index + 1))
            if round_.model_json.exists()
        ]
        if not trained:
            raise SystemExit(f"{run_dir}: no model is kept; simulate with simulate.keep=models")
        seed, last = int(run_dir.parts[-3]), trained[-1]
        found = collect(context, last, read_truths(Run(path=run_dir), context.manifest), seed=seed)
        plar = replace(context.config.plar, rule="robust")
        for name in ("learned", "all", "withheld", "new"):
            sample = thin(found[name], config=plar, seed=seed)
            statistics = fit_statistics(
                sample, num_classes=len(context.manifest.classes), config=plar, seed=seed
            )
            rows = [
                {
                    "commit": commit(), "machine": cpu_machine(), "dataset": options.dataset,
                    "seed": seed, "round": last, "regions": len(np.unique(sample.region)),
                    "statistics": name,
                } | row
                for row in flips(statistics, found["pool"], plar)
            ]  # fmt: skip
            append_rows(options.out, COLUMNS, rows)
            print(*(f"{key}={row[key]}" for row in rows for key in COLUMNS[3:]))


if __name__ == "__main__":
    main()
