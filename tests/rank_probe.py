"""Started by torchrun: trains like the command, then writes down what this process holds.

rank_probe.py RUN OUT writes OUT/<rank>.json.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geohsal.config.launch import find_launch
from geohsal.io.run import open_run
from geohsal.training.collect import collect_pixels
from geohsal.training.model_io import load_model
from geohsal.training.ranks import ALONE, Ranks, joined
from geohsal.workflows import train as workflow
from geohsal.workflows.context import open_context
from geohsal.workflows.validation import count_val


def digest(arrays: dict[str, Any]) -> str:
    """Of names, shapes and bytes."""
    sha = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        array = np.asarray(value)
        sha.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return sha.hexdigest()


def frozen_passes(run_dir: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Validation counts and labelled pixels of the trained model, as these processes see them."""
    context = open_context(run_dir)
    round_ = context.run.round(0)
    predictor = load_model(round_.model_dir).predictor(torch.device("cpu"))
    data = workflow.round_data(context, 0, device=torch.device("cpu"))
    pixels = collect_pixels(
        predictor, context.opener, data.regions, withheld=data.withheld, ranks=ranks
    )
    return {
        "val": count_val(context, context.scenes_with("val"), predictor, ranks).tolist(),
        "pixels": digest({name: getattr(pixels, name) for name in type(pixels).__slots__}),
    }


def main(run_dir: Path, out: Path) -> None:
    """Train in all processes, then look at the result."""
    kept: dict[str, Any] = {}

    def keep(name: str) -> None:
        made = getattr(workflow, name)

        def call(*args: Any, **options: Any) -> Any:
            kept[name] = made(*args, **options)
            return kept[name]

        setattr(workflow, name, call)

    keep("initial_networks")
    keep("_fit")
    with joined(find_launch(os.environ), cuda=lambda: False) as ranks:
        workflow.train(run_dir, ranks=ranks)
        state = kept["_fit"].refine_state
        tensors, thresholds = state.to_parts()
        found = {
            "weights": digest(kept["initial_networks"].state_dict()),
            "statistics": digest(tensors),
            "thresholds": thresholds,
            "history": kept["_fit"].history,
            **frozen_passes(run_dir, ranks),
        }
    (out / f"{ranks.rank}.json").write_text(json.dumps(found, sort_keys=True), "utf-8")


if __name__ == "__main__":
    main(open_run(Path(sys.argv[1])).path, Path(sys.argv[2]))
