"""How far a map of blended windows is from one single pass over the whole scene.

    python tests/benchmarks/bench_single_pass.py RUN [--scenes ID ...] [--out FILE.csv]

RUN is a run with a trained round. Its teacher maps each scene twice: in the model's windows as
`geohsal predict` does, and in one window that holds the whole scene (which small scenes allow
alone). Rows say which share of the valid pixels gets another class, and how far probabilities are
apart at most and in the mean. One row is appended per scene.
"""

import argparse
from pathlib import Path

import torch
from measure import RESULTS, append_rows, commit, cpu_machine

from geohsal.training.inference import Predictor, WindowGrid
from geohsal.training.model_io import load_model
from geohsal.workflows.context import RunContext, open_context

COLUMNS = (
    "commit", "machine", "run", "scene", "pixels", "window_px", "overlap_px", "windows",
    "other_class_share", "probability_max", "probability_mean",
)  # fmt: skip
SIDE_STEP = 32
"""Networks halve a window up to five times."""


def compare(context: RunContext, model_dir: Path, scene_id: str) -> dict[str, object]:
    """One scene, in windows and at once."""
    model, device = load_model(model_dir), torch.device("cpu")
    blended = model.predictor(device)
    with context.open(scene_id) as source:
        scene = source.scene
        side = -(-max(scene.shape) // SIDE_STEP) * SIDE_STEP
        whole = WindowGrid(size=side, overlap=0)
        at_once = Predictor(model.networks, scale=model.scale, grid=whole, device=device)
        one, other = (each.predict(source, scene.extent) for each in (blended, at_once))
    apart = (one.probabilities - other.probabilities).abs().max(dim=0).values[one.valid]
    differs = (one.teacher != other.teacher)[one.valid]
    grid = blended.grid
    return {
        "scene": scene_id,
        "pixels": int(one.valid.sum()),
        "window_px": grid.size,
        "overlap_px": grid.overlap,
        "windows": len(grid.touching(0, scene.height)) * len(grid.touching(0, scene.width)),
        "other_class_share": round(float(differs.float().mean()), 5),
        "probability_max": round(float(apart.max()), 4),
        "probability_mean": round(float(apart.mean()), 5),
    }


def main() -> None:
    """Compare, print, append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scenes", nargs="+")
    parser.add_argument("--out", type=Path, default=RESULTS / "single_pass.csv")
    options = parser.parse_args()
    context = open_context(options.run)
    trained = context.run.last_trained()
    if trained is None:
        parser.error(f"{options.run}: no round is trained yet")
    rows = []
    for scene_id in options.scenes or context.record.scenes:
        row = {"commit": commit(), "machine": cpu_machine(), "run": options.run.name}
        rows.append(row | compare(context, trained.model_dir, scene_id))
        print(rows[-1], flush=True)
    append_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
